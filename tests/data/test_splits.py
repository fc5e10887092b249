from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocae.data import check_disjoint, hash_fraction, select
from mocae.errors import ConfigError, DataError
from mocae.types import Example


def _example(prompt: str, response: str | None = None, source: str = "") -> Example:
    return Example(prompt, axis="a", probe="task", response=response, source=source)


ROWS = [_example(f"prompt {i}") for i in range(400)]


@given(st.text())
def test_hash_fraction_is_in_the_unit_interval_and_ignores_outer_space(prompt: str) -> None:
    assert 0 <= hash_fraction(prompt) < 1
    assert hash_fraction(f" {prompt}\n") == hash_fraction(prompt)


def test_the_largest_hash_stays_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.data.splits.prompt_id", lambda prompt: "f" * 16)
    assert hash_fraction("any") < 1


def test_disjoint_ranges_part_the_prompts() -> None:
    parts = [select(ROWS, hash_range=(low, low + 0.25)) for low in (0.0, 0.25, 0.5, 0.75)]
    assert sorted((row for part in parts for row in part), key=ROWS.index) == ROWS
    assert all(60 < len(part) < 140 for part in parts)
    check_disjoint({str(i): part for i, part in enumerate(parts)})


def test_a_sample_does_not_depend_on_file_order() -> None:
    shuffled = ROWS.copy()
    random.Random(0).shuffle(shuffled)
    assert select(shuffled, limit=30) == select(ROWS, limit=30)


def test_a_smaller_sample_begins_a_larger_one_and_the_seed_changes_it() -> None:
    assert select(ROWS, limit=50)[:20] == select(ROWS, limit=20)
    assert select(ROWS, limit=20, seed=1) != select(ROWS, limit=20)


def test_a_prompt_is_taken_twice_only_when_all_were_taken_once() -> None:
    rows = [_example(f"p{i % 5}", f"r{i}") for i in range(20)]
    taken = select(rows, limit=7)
    assert len({row.prompt for row in taken[:5]}) == 5
    assert len({row.response for row in taken}) == 7
    assert select(list(reversed(rows)), limit=7) == taken


def test_without_limit_the_order_stays_and_fewer_rows_than_the_limit_are_all() -> None:
    assert select(ROWS) == ROWS
    assert len(select(ROWS, limit=1000)) == 400


@pytest.mark.parametrize("hash_range", [(0.5, 0.5), (-0.1, 0.5), (0.0, 1.5)])
def test_wrong_ranges_are_refused(hash_range: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=rf"hash_range: got \[{hash_range[0]}, {hash_range[1]}\]; expected 0 <= low"):
        select(ROWS, hash_range=hash_range)


def test_nothing_to_select_is_an_error() -> None:
    with pytest.raises(DataError, match="select got no examples"):
        select([])
    with pytest.raises(DataError, match=r"none of 1 prompts has a hash in \[0.0, 1e-09\)"):
        select(ROWS[:1], hash_range=(0.0, 1e-9))
    with pytest.raises(ConfigError, match="limit: got 0; expected at least 1"):
        select(ROWS, limit=0)


def test_a_leak_names_splits_sources_and_prompt() -> None:
    prompt = "the same question asked twice " * 5
    splits = {
        "train": [_example(prompt, source="a.jsonl:3"), _example(prompt, source="a.jsonl:4"), _example("other")],
        "calibration": [_example("third")],
        "test": [_example(f"{prompt}\n", source="b.csv:9"), _example("other")],
    }
    with pytest.raises(DataError) as raised:
        check_disjoint(splits)
    message = str(raised.value)
    assert "'train' (a.jsonl:3) and 'test' (b.csv:9): 'the same question" in message
    assert prompt[:57].rstrip() + "..." in message or prompt[:57] + "..." in message
    assert prompt[:61] not in message
    assert "prompts in two splits: 2" in message


def test_repeats_within_a_split_are_no_leak() -> None:
    check_disjoint({"train": [_example("p", "a"), _example("p", "b")], "test": [_example("q")]})
