"""The recipe of a build: what its file of prompts may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.config import Recipe
from mocae.errors import DataError
from mocae.pipelines.build import build_recipe
from mocae.pipelines.rows import read_rows_of

ROWS = [{"prompt": f"Who is {n}?", "axis": "honesty", "probe": "question", "facts": {}} for n in range(40)]


def recipe(folder: Path, lines: list[str], **options: Any) -> Recipe:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    judges = [{"judge": "refusal"}]
    return build_recipe(base="pocket", experts={"honesty": "here"}, calibration=path, judges=judges, **options)


def test_a_row_that_cannot_be_read_stops_a_build_or_is_left_out(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    assert len([*read_rows_of(recipe(tmp_path, lines)).calibration["honesty"]]) > 20
    lines[2] = lines[2][:-5]
    with pytest.raises(DataError, match=r"prompts\.jsonl: line 3"):
        recipe(tmp_path, lines)
    rows = read_rows_of(recipe(tmp_path, lines, on_bad_row="skip"))
    assert len(rows.calibration["honesty"]) + len(rows.test["honesty"]) == 39
    assert rows.n_skipped > 0


def test_a_row_of_an_expert_that_is_not_there_stops_a_build(tmp_path: Path) -> None:
    lines = [json.dumps(row | {"axis": "kindness"} if n == 5 else row) for n, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=r"row 6: field 'axis': unknown expert 'kindness'"):
        recipe(tmp_path, lines, on_bad_row="skip")
    with pytest.raises(DataError, match=r"7 rows of axis 'honesty'; the router needs at least 8"):
        recipe(tmp_path, [json.dumps(row) for row in ROWS[:7]])
