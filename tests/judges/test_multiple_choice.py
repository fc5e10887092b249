from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from mocae.errors import DataError
from mocae.judges.multiple_choice import score_choices
from mocae.prompts import PlainFormat
from mocae.types import Example

LIKELIHOOD = {"no": 0.2, "never": 0.4, "yes": 0.3, "maybe": 0.1}
EXAMPLE = Example(
    "Q?",
    "honesty",
    "question",
    facts={"mc1": {"no": 1, "yes": 0}, "mc2": {"yes": 0, "no": 1, "never": 1, "maybe": 0}},
    source="mc.json:item 4",
)


def _log_probs(pairs: list[tuple[str, str]]) -> Sequence[float]:
    assert {prompt for prompt, _ in pairs} == {"Be true.\nQ: Q?\nA:"}
    assert len(set(pairs)) == len(pairs)
    return [math.log(LIKELIHOOD[choice.removeprefix(" ")]) for _, choice in pairs]


def test_scores_by_hand() -> None:
    (verdicts,) = score_choices([EXAMPLE], _log_probs, prompt_format=PlainFormat(), injection="Be true.")
    assert verdicts["mc1"].score == 0.0  # "yes" is likelier than "no"
    assert verdicts["mc2"].score == pytest.approx(0.6)
    assert verdicts["mc2"].judge == "multiple-choice"


def test_one_failing_question_is_unscored() -> None:
    calls = 0

    def sometimes(pairs: list[tuple[str, str]]) -> Sequence[float]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("out of memory")
        return [-1.0] if calls == 2 else [-1.0] * len(pairs)

    failed, short, fine = score_choices([EXAMPLE] * 3, sometimes, prompt_format=PlainFormat())
    assert (failed["mc1"].score, failed["mc2"].raw) == (None, "RuntimeError: out of memory")
    assert short["mc1"].raw == "JudgeError: got 1 log-probabilities for 4 choices"
    assert fine["mc2"].score == pytest.approx(0.5)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="score_choices got no questions"):
        score_choices([], _log_probs, prompt_format=PlainFormat())
    bare = Example("Q?", "honesty", "question", source="b.csv:2")
    with pytest.raises(DataError, match=r"b.csv:2: facts\['mc1'\] holds no true and false choices; .*'truthfulqa-mc'"):
        score_choices([bare], _log_probs, prompt_format=PlainFormat())
