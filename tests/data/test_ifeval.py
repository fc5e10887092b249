from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.data import read_source
from mocae.data.ifeval import CHECKS
from mocae.errors import ConfigError, DataError
from mocae.types import Example
from real_data import real_data


def _row(prompt: str, **checks: dict[str, Any]) -> dict[str, Any]:
    names = [name.replace("__", ":") for name in checks]
    return {"key": 1, "prompt": prompt, "instruction_id_list": names, "kwargs": list(checks.values())}


ROWS = [
    _row("Name a fruit, no commas.", punctuation__no_comma={}),
    _row("Tell a long tale.", length_constraints__number_words={"relation": "at least", "num_words": 300}),
    _row("Be brief.", length_constraints__number_words={"relation": "less than", "num_words": 300}),
    _row("Say it in 5 parts.", length_constraints__number_paragraphs={"num_paragraphs": 5}, startend__quotation={}),
    _row("Say this again: " + "word " * 90, combination__repeat_prompt={"prompt_to_repeat": "word " * 90}),
]


def _read(tmp_path: Path, rows: list[dict[str, Any]], **options: Any) -> list[Example]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return read_source("ifeval", path, axis="helpfulness", options=options).examples


def test_a_prompt_carries_its_checks_without_nulls(tmp_path: Path) -> None:
    row = _row("Shout.", keywords__frequency={"keyword": "sun", "frequency": 2, "relation": None})
    (example,) = _read(tmp_path, [row])
    assert (example.probe, example.kind, example.response) == ("verifiable", "keywords", None)
    assert example.facts == {
        "checks": [{"check": "keywords:frequency", "arguments": {"keyword": "sun", "frequency": 2}}]
    }


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"most_words": 80}, [0, 2]),  # five paragraphs count as 100 words
        ({"most_words": 100}, [0, 2, 3, 4]),
        ({"without": ["startend"]}, [0, 1, 2, 4]),
        ({"without": ["length_constraints:number_words", "punctuation"]}, [3, 4]),
    ],
)
def test_prompts_that_ask_for_long_answers_or_unwanted_kinds_are_left_out(
    tmp_path: Path, options: dict[str, Any], kept: list[int]
) -> None:
    assert [e.prompt for e in _read(tmp_path, ROWS, **options)] == [ROWS[i]["prompt"] for i in kept]


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"without: unknown kind of instruction 'punctuaton'.* Did you mean 'punctuation'"
    ):
        _read(tmp_path, ROWS, without=["punctuaton"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"instruction_id_list": []},
            "field 'instruction_id_list': found a value of type list; expected a list of checks",
        ),
        (
            {"instruction_id_list": ["punctuation:no_comas"]},
            "found 'punctuation:no_comas'; expected one of change_case:",
        ),
        ({"kwargs": []}, "field 'kwargs': found a value of type list; expected a list of 1 objects"),
        ({"kwargs": ["none"]}, "expected a list of 1 objects"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, [ROWS[0] | change])


def test_the_published_prompts_that_fit_a_short_answer() -> None:
    path = real_data("ifeval/input_data.jsonl.xz")
    tokenized = ["length_constraints:number_sentences", "change_case:capital_word_frequency"]
    ends = ["startend", "detectable_content:postscript", "detectable_format:json_format", "combination:two_responses"]
    settings: list[dict[str, Any]] = [{}, {"most_words": 80}, {"most_words": 80, "without": tokenized}]
    settings.append({"most_words": 80, "without": tokenized + ends})
    read = [read_source("ifeval", path, axis="a", options=options).examples for options in settings]
    assert [len(examples) for examples in read] == [325, 286, 259, 201]  # docs/recipes.md
    assert {c["check"] for e in read[0] for c in e.facts["checks"]} == set(CHECKS)
