"""The page: conversations with one system or two, sliders that steer them, and how far the router can be trusted."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, no_type_check

import gradio as gr
from markupsafe import Markup

from mocae.errors import MocaeError
from mocae.policies import Steering
from mocae.ui.panels import asked, bars, reasons, reliability, slider_class, style
from mocae.ui.talk import Answer, Question, Talk

__all__ = ["THEME", "build_page", "style"]

THEME = gr.themes.Default(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"],
)
"""Fonts of the reader's system: nothing is fetched."""

_LONGEST = 20_000
_NOTHING_YET = "<p class='hint'>Ask something: here stands why the answer was mixed as it was.</p>"
_CUT = "\n\n*(cut off: the longest answer is reached)*"


class _Side(NamedTuple):
    """One system's part of the page; `turns` holds its questions with their answers so far."""

    system: gr.Dropdown
    chat: gr.Chatbot
    why: gr.HTML
    turns: gr.State


def build_page(talk: Talk, *, name: str, report: Mapping[str, Any] | None = None) -> gr.Blocks:
    """Return the page, to be mounted with `THEME` and `style()`.

    Args:
        talk: answers.
        name: of the run, shown on top.
        report: `report.json` of the run, for the reliability diagram and prompts to begin with.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio's parts look here, whatever the page says
    names = list(talk.served.models)
    other = next((system for system in names[1:] if system == "base"), names[-1])
    prompts = _prompts(report)
    page = gr.Blocks(title=f"mocae: {name}", analytics_enabled=False, fill_width=True)
    with page:
        gr.HTML(Markup("<h1>mocae: {}</h1>").format(name))
        with gr.Tabs():
            with gr.Tab("Chat", id="chat"):
                _Conversation(talk, [names[0]], prompts).build()
            with gr.Tab("Two systems", id="two"):
                _Conversation(talk, [names[0], other], prompts).build()
            with gr.Tab("Calibration", id="calibration"):
                gr.HTML(reliability(report), elem_id="reliability")
    page.queue(default_concurrency_limit=talk.engine.limits.batch_size, max_size=talk.engine.limits.queue_size)
    return page


def _prompts(report: Mapping[str, Any] | None) -> list[str]:
    """Return a harmless prompt of each axis that the run was tested on."""
    prompts: dict[str, str] = {}
    for example in (report or {}).get("examples") or ():
        if example.get("probe") != "harmful":
            prompts.setdefault(str(example.get("axis")), str(example["prompt"]))
    return [prompt for prompt in prompts.values() if len(prompt) <= 160][:4]


class _Conversation:
    """One tab: a question goes to each of its systems, all answers are written at once.

    Gradio's ChatInterface asks one function and shows one conversation; here one question has two answers beside each
    other, and each answer changes bars and reasons while it is written.

    Args:
        talk: answers.
        systems: asked at the beginning; one, or two side by side.
        prompts: to begin with.
    """

    def __init__(self, talk: Talk, systems: Sequence[str], prompts: Sequence[str]) -> None:
        self._talk = talk
        self._systems = systems
        self._prompts = prompts
        self._axes = talk.served.experts

    def build(self) -> None:
        """Put the tab's components where gradio stands, and wire them."""
        self._sides: list[_Side] = []
        if len(self._systems) == 1:
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    chat = self._chat("min(62vh, 560px)")
                    self._input()
                with gr.Column(scale=2, min_width=300):
                    system = self._system(0)
                    self._settings()
                    self._sides = [_Side(system, chat, self._why(), gr.State([]))]
        else:
            with gr.Row():
                for i in range(len(self._systems)):
                    with gr.Column(min_width=300):
                        side = _Side(self._system(i), self._chat("min(46vh, 420px)"), self._why(), gr.State([]))
                        self._sides.append(side)
            self._input()
            self._settings()
        self._wire()

    def _system(self, i: int) -> gr.Dropdown:
        choices = [(f"{name}: {about}", name) for name, about in self._talk.served.models.items()]
        return gr.Dropdown(choices, value=self._systems[i], label="System", filterable=False, elem_classes="system")

    def _chat(self, height: str) -> gr.Chatbot:
        return gr.Chatbot(
            show_label=False,
            height=height,
            buttons=["copy_all"],
            feedback_options=None,
            latex_delimiters=[],
            placeholder="Ask something. Below each answer stand the weights of the experts that wrote it.",
            examples=[{"text": prompt} for prompt in self._prompts],
            layout="bubble",
        )

    def _why(self) -> gr.HTML:
        with gr.Accordion("Why this mix", open=len(self._systems) == 1):
            return gr.HTML(_NOTHING_YET, elem_classes="why")

    def _input(self) -> None:
        hint = "Your question (Enter sends)"
        self._text = gr.Textbox(show_label=False, placeholder=hint, max_length=_LONGEST, max_lines=6, submit_btn="Send")
        with gr.Row():
            self._stop = gr.Button("Stop", size="sm", interactive=False, min_width=120)
            self._new = gr.Button("New conversation", size="sm", min_width=120)

    def _settings(self) -> None:
        gr.HTML(
            "<p class='hint'>Steer the next answer: the least share of it that an expert has. 0 as the system chooses, "
            "1 this expert alone; together at most 1.</p>"
        )
        self._knobs = {"at_least": self._row("at least", 0.0)}
        with gr.Accordion("More ways to steer", open=False):
            gr.HTML(
                "<p class='hint'>At most: the largest share that an expert has, 1 as the system chooses, 0 without it. "
                "Prefer: how much surer of it the router is to be, in standard deviations of its logits.</p>"
            )
            self._knobs["at_most"] = self._row("at most", 1.0)
            self._knobs["prefer"] = self._row("prefer", 0.0, shares=False)
        multi_turn = self._talk.served.multi_turn
        info = None if multi_turn else "This run's experts were trained on single questions."
        with gr.Row():
            self._reset = gr.Button("Reset steering", size="sm", min_width=120)
            self._remember = gr.Checkbox(multi_turn, label="Read earlier turns too", info=info)

    def _row(self, name: str, value: float, *, shares: bool = True) -> list[Any]:
        """Return one control an expert, next to each other: sliders of shares, or numbers."""
        made: list[Any] = []
        with gr.Row():
            for i, axis in enumerate(self._axes):
                looks: dict[str, Any] = {"label": f"{axis} {name}", "elem_classes": slider_class(i), "min_width": 280}
                if shares:
                    made.append(gr.Slider(0, 1, value, step=0.05, buttons=["reset"], **looks))
                else:
                    made.append(gr.Number(value, step=0.5, **looks))
        return made

    def _wire(self) -> None:
        sides, stop = self._sides, self._stop
        shown = [part for side in sides for part in (side.turns, side.chat, side.why)]
        systems, turns = [side.system for side in sides], [side.turns for side in sides]
        knobs = [knob for row in self._knobs.values() for knob in row]
        neutral = [knob.value for knob in knobs]
        inputs, outputs = [self._text, self._remember, *systems, *turns, *knobs], [self._text, stop, *shown]
        asked: list[dict[str, Any]] = [self._text.submit(self._asked, inputs, outputs, **_quiet())]
        for side in sides:
            example = side.chat.example_select(_example, None, self._text, **_quiet(queue=False))
            asked.append(example.then(self._asked, inputs, outputs, **_quiet()))
        stop.click(_idle, None, stop, cancels=asked, **_quiet(queue=False))
        self._reset.click(lambda: neutral, None, knobs, **_quiet(queue=False))
        for clear in (self._new.click, *(side.chat.clear for side in sides)):
            clear(
                lambda: [_idle(), *([], [], _NOTHING_YET) * len(sides)],
                None,
                [stop, *shown],
                cancels=asked,
                **_quiet(queue=False),
            )

    @no_type_check  # where tests check types, a wrapper would hide from gradio that this is a generator
    def _asked(self, *values):
        yield from self._answer(*values)

    def _answer(self, text: str, remember: bool, *rest: Any) -> Iterator[list[Any]]:
        """Yield the new state of every component in the order of the outputs, until all answers are written."""
        n = len(self._systems)
        systems, turns, numbers = rest[:n], rest[n : 2 * n], iter(rest[2 * n :])
        if not text.strip():
            yield [gr.skip()] * (2 + 3 * n)
            return
        words: dict[str, dict[str, float]] = {}
        for word, knobs in self._knobs.items():
            given = zip(self._axes, knobs, numbers, strict=False)
            words[word] = {axis: float(number or 0) for axis, knob, number in given if number != knob.value}
        explained = [False] * n
        try:
            steering = Steering.of(**words)
            questions = []
            for system, before in zip(systems, turns, strict=True):
                earlier = tuple((question.text, answer.text) for question, answer in before) if remember else ()
                questions.append(Question(system, text, earlier, steering))
            for answers in self._talk.answers(questions):
                outputs: list[Any] = ["", gr.Button(interactive=any(answer.reason is None for answer in answers))]
                for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
                    all_turns, why = [*turns[i], (question, answer)], gr.skip()
                    if answer.weights is not None and not explained[i]:
                        explained[i] = True
                        why = reasons(answer.why, system=question.system, steered=bool(question.steering.words))
                    outputs += [all_turns, _messages(all_turns), why]
                yield outputs
        except MocaeError as error:
            gr.Warning(html.escape(str(error)), title="No answer", duration=None)
            yield [gr.skip(), _idle(), *[gr.skip()] * 3 * n]


def _messages(turns: Sequence[tuple[Question, Answer]]) -> list[dict[str, Any]]:
    """Return a conversation as gradio shows it: below each answer its weights."""
    messages: list[dict[str, Any]] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": gr.HTML(asked(question.text))})
        text = answer.text + (_CUT if answer.reason == "length" else "")
        below = [] if answer.weights is None else [gr.HTML(bars(answer.weights))]
        messages.append({"role": "assistant", "content": [text or "…", *below]})
    return messages


def _idle() -> gr.Button:
    return gr.Button(interactive=False)


def _example(event: gr.SelectData) -> str:
    return str(event.value["text"])


def _quiet(*, queue: bool = True) -> dict[str, Any]:
    """Return the options of every event: no spinners over what is there, nothing in gradio's public API."""
    return {"show_progress": "hidden", "api_visibility": "private", "queue": queue}
