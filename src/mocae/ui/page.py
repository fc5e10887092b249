"""The page: conversations with one system or two, sliders that steer them, and how far the router can be trusted."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import gradio as gr
from markupsafe import Markup

from mocae.errors import MocaeError
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
_STRONGEST = 4.0
_NOTHING_YET = "<p class='hint'>Ask something: here stands why the answer was mixed as it was.</p>"
_CUT = "\n\n*(cut off: the longest answer is reached)*"


@dataclass(frozen=True)
class _Turn:
    """A question with its answer so far."""

    question: Question
    answer: Answer


@dataclass(frozen=True)
class _Side:
    """One system's part of the page."""

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
    found: dict[str, str] = {}
    for example in (report or {}).get("examples") or ():
        if example.get("probe") != "harmful":
            found.setdefault(str(example.get("axis")), str(example["prompt"]))
    return [prompt for prompt in found.values() if len(prompt) <= 160][:4]


class _Conversation:
    """One tab: a question goes to each of its systems, all answers are written at once.

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
        if len(self._systems) == 1:
            with gr.Row():
                with gr.Column(scale=3, min_width=300):
                    chat = self._chat("min(62vh, 560px)")
                    text, stop, new = self._input()
                with gr.Column(scale=2, min_width=300):
                    system = self._system(0)
                    sliders, reset, remember = self._settings()
                    why = self._why()
            sides = [_Side(system, chat, why, gr.State([]))]
        else:
            sides = []
            with gr.Row():
                for i in range(len(self._systems)):
                    with gr.Column(min_width=300):
                        system, chat, why = self._system(i), self._chat("min(46vh, 420px)"), self._why()
                        sides.append(_Side(system, chat, why, gr.State([])))
            text, stop, new = self._input()
            sliders, reset, remember = self._settings()
        self._wire(sides, text, stop, new, sliders, reset, remember)

    def _system(self, i: int) -> gr.Dropdown:
        models = self._talk.served.models
        choices = [(f"{name}: {about}", name) for name, about in models.items()]
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

    def _input(self) -> tuple[gr.Textbox, gr.Button, gr.Button]:
        text = gr.Textbox(
            show_label=False,
            placeholder="Your question (Enter sends)",
            max_length=_LONGEST,
            max_lines=6,
            submit_btn="Send",
        )
        with gr.Row():
            stop, new = (
                gr.Button("Stop", size="sm", interactive=False, min_width=120),
                gr.Button("New conversation", size="sm", min_width=120),
            )
        return text, stop, new

    def _settings(self) -> tuple[list[gr.Slider], gr.Button, gr.Checkbox]:
        gr.HTML(
            "<p class='hint'>Steer the next answer: factors on the weights of the experts. 1 as the system chooses, "
            "0 without this expert.</p>"
        )
        with gr.Row():
            sliders = [
                gr.Slider(
                    0,
                    _STRONGEST,
                    1,
                    step=0.1,
                    label=axis,
                    elem_classes=slider_class(i),
                    buttons=["reset"],
                    min_width=280,
                )
                for i, axis in enumerate(self._axes)
            ]
        with gr.Row():
            reset = gr.Button("Reset factors to 1", size="sm", min_width=120)
            remember = gr.Checkbox(
                self._talk.served.multi_turn,
                label="Read earlier turns too",
                info=None if self._talk.served.multi_turn else "This run's experts were trained on single questions.",
            )
        return sliders, reset, remember

    def _wire(
        self,
        sides: Sequence[_Side],
        text: gr.Textbox,
        stop: gr.Button,
        new: gr.Button,
        sliders: Sequence[gr.Slider],
        reset: gr.Button,
        remember: gr.Checkbox,
    ) -> None:
        shown = [part for side in sides for part in (side.turns, side.chat, side.why)]
        inputs = [text, remember, *(side.system for side in sides), *(side.turns for side in sides), *sliders]
        asked = text.submit(self._asked, inputs, [text, stop, *shown], **_quiet())
        examples = [
            side.chat.example_select(_example, None, text, **_quiet(queue=False)).then(
                self._asked, inputs, [text, stop, *shown], **_quiet()
            )
            for side in sides
        ]
        stop.click(lambda: gr.Button(interactive=False), None, stop, cancels=[asked, *examples], **_quiet(queue=False))
        reset.click(lambda: [1.0] * len(sliders), None, list(sliders), **_quiet(queue=False))
        for clear in (new.click, *(side.chat.clear for side in sides)):
            clear(
                lambda: [
                    gr.Button(interactive=False),
                    *([], [], _NOTHING_YET) * len(sides),
                ],
                None,
                [stop, *shown],
                cancels=[asked, *examples],
                **_quiet(queue=False),
            )

    @no_type_check  # where tests check types, a wrapper would hide from gradio that this is a generator
    def _asked(self, *values):
        yield from self._answer(*values)

    def _answer(self, text: str, remember: bool, *rest: Any) -> Iterator[list[Any]]:
        """Yield the new state of every component in the order of the outputs, until all answers are written."""
        n = len(self._systems)
        systems, turns, factors = rest[:n], rest[n : 2 * n], rest[2 * n :]
        if not text.strip():
            yield [gr.skip()] * (2 + 3 * n)
            return
        steer = {axis: float(factor) for axis, factor in zip(self._axes, factors, strict=True) if factor != 1}
        questions = [
            Question(
                system,
                text,
                tuple((turn.question.text, turn.answer.text) for turn in mine) if remember else (),
                steer,
            )
            for system, mine in zip(systems, turns, strict=True)
        ]
        explained = [False] * n
        try:
            for answers in self._talk.answers(questions):
                outputs: list[Any] = ["", gr.Button(interactive=any(answer.reason is None for answer in answers))]
                for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
                    all_turns = [*turns[i], _Turn(question, answer)]
                    outputs += [all_turns, _messages(all_turns), gr.skip()]
                    if answer.weights is not None and not explained[i]:
                        explained[i] = True
                        outputs[-1] = reasons(answer.why, system=question.system, steered=bool(question.steer))
                yield outputs
        except MocaeError as error:
            gr.Warning(html.escape(str(error)), title="No answer", duration=None)
            yield [gr.skip(), gr.Button(interactive=False), *[gr.skip()] * 3 * n]


def _messages(turns: Sequence[_Turn]) -> list[dict[str, Any]]:
    """Return a conversation as gradio shows it: below each answer its weights."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages.append({"role": "user", "content": gr.HTML(asked(turn.question.text))})
        text = turn.answer.text + (_CUT if turn.answer.reason == "length" else "")
        content: list[Any] = [text or "…"]
        if turn.answer.weights is not None:
            content.append(gr.HTML(bars(turn.answer.weights)))
        messages.append({"role": "assistant", "content": content})
    return messages


def _example(event: gr.SelectData) -> str:
    return str(event.value["text"])


def _quiet(*, queue: bool = True) -> dict[str, Any]:
    """Return the options of every event: no spinners over what is there, nothing in gradio's public API."""
    return {"show_progress": "hidden", "api_visibility": "private", "queue": queue}
