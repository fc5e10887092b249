from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mocae.errors import ArtifactError
from mocae.evaluation import read_samples, write_samples
from mocae.types import Answer, Example, Sample, Verdict

EXAMPLE = Example(
    "Name a river.\u2028Two lines\n“quoted”",
    "helpfulness",
    "task",
    response="the Rhine",
    kind="river",
    group="rivers",
    facts={"proper": ["Rhine"], "nested": {"n": 1.5, "none": None}},
    source="rows.json:3",
)
SAMPLES = [
    Sample(
        "alignx",
        Answer(EXAMPLE, "Der Rhein — \n", {"helpfulness": 0.1 + 0.2, "honesty": -1.0}, 7),
        {"correct": Verdict(0.25, "wrong", "overlap", "raw\ttext", 0.5), "refusal": Verdict(None, "unscored")},
        False,
    ),
    Sample("base", Answer(Example("?", "honesty", "question"), ""), {}, None),
]


def test_samples_come_back_as_they_were_but_for_the_training_response(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(SAMPLES, path)
    first, second = read_samples(path)
    without_response = replace(SAMPLES[0].answer, example=replace(EXAMPLE, response=None))
    assert first == replace(SAMPLES[0], answer=without_response)
    assert second == SAMPLES[1]
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 3
    assert json.loads(lines[0])["id"] == EXAMPLE.id


def test_no_samples_make_an_empty_file(tmp_path: Path) -> None:
    write_samples([], tmp_path / "samples.jsonl")
    assert list(read_samples(tmp_path / "samples.jsonl")) == []


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b"null", b'{"system": "x"}', b"\xff\xfe", b'{"verdicts": [1]}']
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(SAMPLES[:1], path)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ArtifactError, match=r"samples\.jsonl:2: damaged"):
        list(read_samples(path))


@pytest.mark.parametrize(("key", "value"), [("verdicts", [1]), ("verdicts", {"correct": 1}), ("verdicts", None)])
def test_verdicts_of_another_shape_are_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "samples.jsonl"
    write_samples(SAMPLES[:1], path)
    row = json.loads(path.read_text(encoding="utf-8")) | {key: value}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"samples\.jsonl:1: damaged"):
        list(read_samples(path))
