"""Rows of messages become the question and answer they begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.data import read_source
from mocae.errors import DataError


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def test_both_forms_are_read_and_a_system_message_opens_the_prompt(tmp_path: Path) -> None:
    file = written(
        tmp_path / "rows.jsonl",
        {"messages": said(("system", "Be brief."), ("user", "Who?"), ("assistant", "Ann."))},
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]},
        {"messages": said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))},
    )
    found = read_source("messages", file, axis="x").examples
    assert [(row.prompt, row.response) for row in found] == [
        ("Be brief.\n\nWho?", "Ann."),
        ("Where?", "Here."),
        ("a", "b"),
    ]
    assert len(read_source("messages", file, axis="x", options={"single_turn": True}).examples) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "field 'messages': found no list of messages"),
        ({"messages": said(("assistant", "a"), ("user", "b"))}, "turns in another order"),
        ({"messages": said(("user", "a"))}, "turns in another order"),
        ({"messages": said(("system", "a"))}, "turns in another order"),
        ({"messages": said(("tool", "a"), ("user", "b"))}, r"messages\[0\]: field 'role': found 'tool'"),
        ({"messages": said(("user", "a"), ("assistant", None))}, r"messages\[1\]: field 'content': found null"),
        ({"conversations": [{"from": "human", "value": "cut \ud83d"}]}, "found half a character"),
        ({"text": "a"}, "column 'messages' is missing; found 'text'"),
    ],
)
def test_bad_conversations_are_bad_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"messages": said(("user", "q"), ("assistant", "a"))}
    file = written(tmp_path / "rows.jsonl", good, row)
    with pytest.raises(DataError, match=rf"line 2: .*{message}"):
        read_source("messages", file, axis="x")
    assert read_source("messages", file, axis="x", on_bad_row="skip").n_skipped == 1
