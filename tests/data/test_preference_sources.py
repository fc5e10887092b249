"""Sources of chosen and rejected responses, and rows that name their axis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.data import read_source
from mocae.errors import DataError
from real_data import real_data

CHAT = "\n\nHuman: Is the shop open?\n\nAssistant: It may be.\n\nHuman: When?\n\nAssistant:"


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_hh_is_cut_before_the_last_answer(tmp_path: Path) -> None:
    file = written(tmp_path / "hh.jsonl", {"chosen": f"{CHAT} At nine.", "rejected": f"{CHAT} Never."})
    (row,) = read_source("hh-rlhf", file, axis="harmlessness").examples
    assert row.prompt == "Is the shop open?\n\nAssistant: It may be.\n\nHuman: When?"
    assert (row.response, row.facts, row.group) == ("At nine.", {"rejected": "Never."}, "Is the shop open?")
    with pytest.raises(DataError, match="no row is left"):
        read_source("hh-rlhf", file, axis="harmlessness", options={"single_turn": True})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "hello", "rejected": "hello"}, "field 'chosen': found no conversation"),
        ({"chosen": f"{CHAT} a", "rejected": "\n\nHuman: x\n\nAssistant: b"}, "another conversation"),
        ({"chosen": CHAT, "rejected": f"{CHAT} b"}, "field 'chosen': found no conversation"),
    ],
)
def test_a_bad_conversation_is_told(row: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_source("hh-rlhf", written(tmp_path / "hh.jsonl", row), axis="a")


def test_examples_of_one_axis_are_taken(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.jsonl",
        {"prompt": "a?", "axis": "x", "probe": "task", "facts": {"reference": "b"}, "kind": "k", "group": "g"},
        {"prompt": "c?", "axis": "y", "probe": "benign", "response": "d"},
    )
    (one,) = read_source("examples", file, axis="x").examples
    assert (one.prompt, one.probe, one.kind, one.group, one.facts) == ("a?", "task", "k", "g", {"reference": "b"})
    assert one.response is None
    (other,) = read_source("examples", file, axis="y").examples
    assert other.response == "d"
    written(file, {"prompt": "a?", "axis": "x", "probe": "tusk"})
    with pytest.raises(DataError, match="field 'probe': found 'tusk'; expected one of 'task'"):
        read_source("examples", file, axis="x")


def test_real_hh_is_read_whole() -> None:
    file = real_data("hh_rlhf/harmless_base.jsonl.xz")
    found = read_source("hh-rlhf", file, axis="a", on_bad_row="skip")
    assert len(found.examples) > 1000
    assert all(row.response and row.facts["rejected"] for row in found.examples)
