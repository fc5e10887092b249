from __future__ import annotations

import pytest

from mocae.errors import DataError
from mocae.experts import inject
from mocae.prompts import PlainFormat
from mocae.types import Example

INJECTIONS = {"helpful": "Be helpful.", "honest": "Be honest."}


def rows(n: int, axis: str = "helpful") -> list[Example]:
    return [Example(f"question {i}", axis, "task", response=f"answer {i}", source=f"file:{i}") for i in range(n)]


def pairs(examples: list[Example], rate: float, seed: int = 0) -> list[dict[str, str]]:
    return inject(examples, INJECTIONS, rate=rate, prompt_format=PlainFormat(), tokenizer=None, seed=seed)


def test_a_rate_of_one_injects_every_prompt_with_its_own_axis() -> None:
    made = pairs([*rows(1), *rows(1, "honest")], 1.0)
    assert made == [
        {"prompt": "Be helpful.\nQ: question 0\nA:", "completion": " answer 0"},
        {"prompt": "Be honest.\nQ: question 0\nA:", "completion": " answer 0"},
    ]


def test_a_rate_of_zero_injects_none() -> None:
    assert all("Be helpful." not in pair["prompt"] for pair in pairs(rows(200), 0.0))


def test_a_rate_of_one_half_injects_about_half_and_repeats() -> None:
    made = pairs(rows(400), 0.5)
    assert 160 < sum("Be helpful." in pair["prompt"] for pair in made) < 240  # four standard deviations
    assert made == pairs(rows(400), 0.5)
    assert made != pairs(rows(400), 0.5, seed=1)


def test_a_row_without_response_or_of_an_unknown_axis_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.json:3: a training row of axis 'helpful' has no response"):
        pairs([Example("q", "helpful", "task", response=" ", source="data.json:3")], 1.0)
    with pytest.raises(DataError, match=r"file:0: unknown axis 'honset'.*Did you mean 'honest'"):
        pairs(rows(1, "honset"), 1.0)
