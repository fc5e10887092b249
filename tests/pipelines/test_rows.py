from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mocae.config import parse_recipe
from mocae.data import hash_fraction
from mocae.errors import DataError
from mocae.stages.rows import Rows, read_rows_of

OPTIONS = {"probe": "task", "columns": {"prompt": "q", "response": "a"}}
Read = Callable[..., Rows]


def source(path: str, **settings: Any) -> dict[str, Any]:
    return {"source": "table", "path": path, "options": OPTIONS, **settings}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function: files (name -> prompts) and axes (name -> split -> sources) in, rows out."""

    def make(files: dict[str, Sequence[Any]], axes: dict[str, dict[str, Any]], *settings: str) -> Rows:
        for name, prompts in files.items():
            rows = [{"q": p, "a": "yes"} if isinstance(p, str) else p for p in prompts]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        values = {
            "name": "rows",
            "base": {"model": None},
            "prompt_format": "plain",
            "data_root": str(tmp_path),
            "axes": [{"name": name, "injection": "", **splits} for name, splits in axes.items()],
            "judges": [{"judge": "refusal"}],
            "systems": ["base"],
        }
        return read_rows_of(parse_recipe(values, settings))

    return make


ONE = {"a": {"train": source("train.jsonl"), "calibration": source("cal.jsonl"), "test": source("test.jsonl")}}


def prompts(rows: Sequence[Any]) -> list[str]:
    return [row.prompt for row in rows]


def test_rows_come_by_split_and_axis_in_order(read: Read) -> None:
    axes = ONE | {"b": {"train": [source("t1.jsonl"), source("t2.jsonl")], "test": source("t3.jsonl")}}
    files = {"train": ["1", "2"], "cal": ["3"], "test": ["4", "5"], "t1": ["6"], "t2": ["7"], "t3": ["8"]}
    rows = read(files, axes)
    assert prompts(rows.all_of("train")) == ["1", "2", "6", "7"]
    assert prompts(rows.all_of("test")) == ["4", "5", "8"]
    assert rows.counts() == {"train": {"a": 2, "b": 2}, "calibration": {"a": 1}, "test": {"a": 2, "b": 1}}
    assert rows.n_skipped == 0


@pytest.mark.parametrize(
    ("train", "cal", "test", "message"),
    [
        (["1", "x"], ["2"], ["3", " x "], r"'train' \(.*train\.jsonl:2\) and 'test' \(.*test\.jsonl:2\): 'x'"),
        (["1"], ["x"], ["x"], r"'calibration' \(.*cal\.jsonl:1\) and 'test' \(.*test\.jsonl:1\): 'x'"),
        (["x"], ["1", "2", "x\n"], ["3"], r"'train' \(.*train\.jsonl:1\) and 'calibration' \(.*cal\.jsonl:3\): 'x'"),
    ],
)
def test_a_leak_is_refused_with_both_sources(
    read: Read, train: list[str], cal: list[str], test: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read({"train": train, "cal": cal, "test": test}, ONE)


def test_a_leak_between_axes_is_refused(read: Read) -> None:
    axes = ONE | {"b": {"train": source("t1.jsonl"), "test": source("t2.jsonl")}}
    files = {"train": ["1"], "cal": ["2"], "test": ["3"], "t1": ["3"], "t2": ["4"]}
    with pytest.raises(DataError, match=r"'train' \(.*t1\.jsonl:1\) and 'test' \(.*test\.jsonl:1\)"):
        read(files, axes)


def test_a_prompt_that_tests_two_axes_is_refused(read: Read) -> None:
    axes = ONE | {"b": {"train": source("t1.jsonl"), "test": source("t2.jsonl")}}
    files = {"train": ["1"], "cal": ["2"], "test": ["x"], "t1": ["3"], "t2": ["4", "x"]}
    expected = r"split 'test': axes 'a' \(.*test\.jsonl:1\) and 'b' \(.*t2\.jsonl:2\) have a prompt in common"
    with pytest.raises(DataError, match=expected):
        read(files, axes)


def test_a_prompt_is_asked_once_and_trained_on_as_often_as_it_is_there(read: Read) -> None:
    rows = read({"train": ["1", "1"], "cal": ["2", "2 "], "test": ["3", "4", "3", "5", "4"]}, ONE)
    assert prompts(rows.train["a"]) == ["1", "1"]
    assert prompts(rows.calibration["a"]) == ["2"]
    assert prompts(rows.test["a"]) == ["3", "4", "5"]


def test_bad_rows_stop_or_are_counted(read: Read) -> None:
    files = {"train": ["1", {"q": ""}, {"a": "no prompt"}, "2"], "cal": ["3"], "test": ["4", {"q": 5, "a": "x"}]}
    with pytest.raises(DataError, match=r"train\.jsonl: line 2: field 'q': found empty text"):
        read(files, ONE)
    lenient = {
        "a": {
            "train": source("train.jsonl", on_bad_row="skip"),
            "calibration": source("cal.jsonl"),
            "test": source("test.jsonl", on_bad_row="skip"),
        }
    }
    rows = read(files, lenient)
    assert (prompts(rows.train["a"]), prompts(rows.test["a"]), rows.n_skipped) == (["1", "2"], ["4"], 3)


def test_hash_ranges_divide_one_file(read: Read) -> None:
    every = [f"prompt {i}" for i in range(60)]
    axes = {
        "a": {
            "train": source("all.jsonl", hash_range=[0.0, 0.5]),
            "calibration": source("all.jsonl", hash_range=[0.5, 0.75]),
            "test": source("all.jsonl", hash_range=[0.75, 1.0]),
        }
    }
    rows = read({"all": every}, axes)
    splits = [prompts(rows.all_of(split)) for split in ("train", "calibration", "test")]
    assert sorted(splits[0] + splits[1] + splits[2]) == sorted(every)
    assert splits[1] == [p for p in every if 0.5 <= hash_fraction(p) < 0.75]
    assert all(splits)


def test_a_limit_is_a_sample_fixed_by_the_seed(read: Read) -> None:
    files = {"train": [str(i) for i in range(50)], "cal": ["x"], "test": ["y"]}
    axes = {"a": ONE["a"] | {"train": source("train.jsonl", limit=10)}}
    first, again, other = (prompts(read(files, axes, f"seed={seed}").train["a"]) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == len(set(other)) == 10


def test_an_empty_range_is_refused(read: Read) -> None:
    axes = {"a": ONE["a"] | {"test": source("test.jsonl", hash_range=[0.0, 1e-9])}}
    with pytest.raises(DataError, match=r"none of 1 prompts has a hash in \[0\.0, 1e-09\); widen hash_range"):
        read({"train": ["1"], "cal": ["2"], "test": ["3"]}, axes)
