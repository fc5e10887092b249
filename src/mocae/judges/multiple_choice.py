"""TruthfulQA's multiple choice: which reference answers a model finds likely. Nothing is generated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mocae.errors import DataError, JudgeError
from mocae.judges.base import unscored
from mocae.metrics import MultipleChoiceScores, multiple_choice_scores
from mocae.prompts import PromptFormat
from mocae.types import Example, Verdict

__all__ = ["LogProbs", "score_choices"]

LogProbs = Callable[[list[tuple[str, str]]], Sequence[float]]
"""Pairs of prompt text and completion text to the log-probability of each completion: its tokens summed, in nats."""

_NAME = "multiple-choice"


def score_choices(
    examples: Sequence[Example],
    log_probs: LogProbs,
    *,
    prompt_format: PromptFormat,
    injection: str | None = None,
    tokenizer: Any = None,
) -> list[dict[str, Verdict]]:
    """Return "mc1" and "mc2" of each question, in order; higher is better.

    A question whose log-probabilities fail is unscored and costs the others nothing.

    Args:
        examples: from the source `truthfulqa-mc`: `facts["mc1"]` and `facts["mc2"]` map choices to 1 (true) or 0.
        log_probs: the model; called once a question, with every choice of it once.
        prompt_format: how questions and choices are written.
        injection: text put in front of the question.
        tokenizer: for formats that need one.

    Raises:
        DataError: no examples, or one without choices.

    Reference:
        Lin et al., *TruthfulQA*, arXiv:2109.07958, section 3.2.

    Deviation:
        The authors put six example questions before each; here the prompt format decides.
    """
    if not examples:
        raise DataError("score_choices got no questions; expected at least one")
    judged = []
    for example in examples:
        mc1, mc2 = _choices(example, "mc1"), _choices(example, "mc2")
        start = time.perf_counter()
        try:
            prompt = prompt_format.format_prompt(example.prompt, injection=injection, tokenizer=tokenizer)
            choices = list(dict.fromkeys([*mc1, *mc2]))
            values = log_probs([(prompt, prompt_format.format_response(choice)) for choice in choices])
            if len(values) != len(choices):
                raise JudgeError(f"got {len(values)} log-probabilities for {len(choices)} choices")
            by_choice = dict(zip(choices, values, strict=True))
            scores = {"mc1": _scores(mc1, by_choice).mc1, "mc2": _scores(mc2, by_choice).mc2}
            seconds = time.perf_counter() - start
            judged.append({name: Verdict(score, name, _NAME, "", seconds) for name, score in scores.items()})
        except Exception as error:  # the model is foreign code; what it raises costs this question only
            judged.append(dict.fromkeys(("mc1", "mc2"), unscored(error, judge=_NAME)))
    return judged


def _choices(example: Example, name: str) -> Mapping[str, int]:
    choices = example.facts.get(name)
    if not isinstance(choices, Mapping) or set(choices.values()) != {0, 1}:
        raise DataError(
            f"{example.source or 'an example'}: facts[{name!r}] holds no true and false choices; expected rows of the "
            "source 'truthfulqa-mc'"
        )
    return choices


def _scores(choices: Mapping[str, int], by_choice: Mapping[str, float]) -> MultipleChoiceScores:
    true = [by_choice[choice] for choice, label in choices.items() if label == 1]
    false = [by_choice[choice] for choice, label in choices.items() if label == 0]
    return multiple_choice_scores(true, false)
