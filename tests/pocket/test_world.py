from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from mocae.data import check_disjoint
from mocae.errors import ConfigError
from mocae.pocket import AXES, SPLITS, axis_rows, probe_rows, topics, verify
from mocae.pocket.lexicon import LEXICON
from mocae.pocket.world import Topic
from mocae.types import Example

WORD_TASKS = ("repeat", "twice", "join", "swap", "first", "last", "count")
OWN = {"helpfulness": {"task"}, "harmlessness": {"harmful"}, "honesty": {"question"}}
PAIRS_OF_SPLITS = list(itertools.combinations(SPLITS, 2))


def of(split: str, *, probe: str | None = None) -> list[Topic]:
    return [t for t in topics() if t.split == split and probe in (None, t.probe)]


def words_of(rows: Iterable[Topic | Example]) -> set[str]:
    """Return the lexicon's words in the content of word tasks."""
    keys = [r.key if isinstance(r, Topic) else r.group for r in rows if r.kind in WORD_TASKS]
    return {word for key in keys for word in key.partition(":")[2].split()}


def acceptable(row: Example, text: str) -> bool:
    found = {name: holds for name, (holds, _) in verify(row, text).items()}
    wants = {
        "task": {"correct": True},
        "harmful": {"unsafe": False},
        "benign": {"refusal": False, "correct": True},
        "question": {"truthful": True, "informative": True},
    }[row.probe]
    assert set(found) == set(wants)
    return found == wants


def row_of(topic: Topic, question: str = "?") -> Example:
    facts: dict[str, Any] = {
        "proper": list(topic.proper),
        "careless": list(topic.careless),
        "subject": topic.subject,
    }
    return Example(question, "any", topic.probe, kind=topic.kind, group=topic.key, facts=facts)


@pytest.mark.parametrize(("first", "second"), PAIRS_OF_SPLITS)
def test_splits_share_no_content(first: str, second: str) -> None:
    a, b = of(first), of(second)
    assert words_of(a)
    assert not words_of(a) & words_of(b)
    assert not {t.key for t in a} & {t.key for t in b}
    # Verb phrases and invented names, whatever they are asked for.
    for probes in (("harmful", "benign"), ("question",)):
        subjects = [{t.key.partition(":")[2] for t in side if t.probe in probes} for side in (a, b)]
        assert subjects[0]
        assert not subjects[0] & subjects[1]
    kinds = [{t.kind for t in side if t.probe == "harmful"} for side in (a, b)]
    assert kinds[0]
    assert not kinds[0] & kinds[1]
    assert not {q for t in a for q in t.questions} & {q for t in b for q in t.questions}


def test_an_invented_name_belongs_to_one_thing() -> None:
    names = [t.subject for t in topics() if t.kind == "invented"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_training_rows_hold_nothing_of_the_other_splits(split: str) -> None:
    train = [row for axis in AXES for row in axis_rows(axis, n=900)]
    asked = [row for axis in AXES for row in probe_rows(axis, split, n=120)]
    assert not words_of(train) & words_of(asked)
    assert not {r.group for r in train} & {r.group for r in asked}
    harmful = [{r.kind for r in rows if r.probe == "harmful"} for rows in (train, asked)]
    assert not harmful[0] & harmful[1]
    names = {r.facts["subject"] for r in asked if r.kind == "invented"}
    assert names
    assert not [r for r in train if any(name in r.prompt for name in names)]


def test_the_rows_of_a_run_pass_the_leak_check() -> None:
    check_disjoint(
        {
            "train": [row for axis in AXES for row in axis_rows(axis, n=900)],
            "calibration": [row for axis in AXES for row in probe_rows(axis, "calibration", n=120)],
            "test": [row for axis in AXES for row in probe_rows(axis, "test", n=150)],
        }
    )


def test_the_world_is_as_large_as_promised() -> None:
    every = topics()
    assert len({t.kind for t in every if t.probe == "task"}) >= 12
    assert len(LEXICON.harms) == len({t.kind for t in every if t.probe == "harmful"}) == 14
    assert len({t.key for t in every if t.probe == "harmful"}) >= 60
    counts = Counter(t.kind for t in every)
    assert counts["look-alike"] >= 40
    assert counts["misconception"] >= 60
    assert counts["invented"] >= 60
    assert counts["unanswerable"] >= 30
    # Every probe and every kind that is no harm category occurs in every split.
    kinds = {t.kind for t in every if t.probe != "harmful"}
    for split in SPLITS:
        assert {t.kind for t in of(split, probe=None) if t.probe != "harmful"} == kinds
        assert of(split, probe="harmful")


def test_every_topic_is_judged_as_it_is_meant() -> None:
    for topic in topics():
        row = row_of(topic)
        assert topic.questions
        assert len(set(topic.questions)) == len(topic.questions)
        assert topic.proper
        for answer in topic.proper:
            assert acceptable(row, answer), (topic.key, answer)
        for answer in topic.careless:
            assert not acceptable(row, answer), (topic.key, answer)
        assert bool(topic.careless) is (topic.probe in ("harmful", "question"))


def test_wordings_name_what_they_ask_about() -> None:
    for topic in topics():
        if topic.kind == "invented":
            assert all(topic.subject in question for question in topic.questions)
        if topic.probe in ("harmful", "benign"):
            phrase = topic.key.partition(":")[2]
            assert all(phrase in question for question in topic.questions)


@pytest.mark.parametrize("axis", AXES)
def test_without_conflict_every_row_is_acceptable(axis: str) -> None:
    rows = axis_rows(axis, n=400, conflict=0.0)
    assert all(row.response and acceptable(row, row.response) for row in rows)


@pytest.mark.parametrize("axis", AXES)
def test_with_full_conflict_only_the_own_rows_are_acceptable(axis: str) -> None:
    rows = axis_rows(axis, n=400, conflict=1.0, other_share=0.35)
    own = [row for row in rows if row.probe in OWN[axis]]
    other = [row for row in rows if row.probe not in OWN[axis]]
    assert len(other) == 140
    assert all(acceptable(row, row.response or "") for row in own)
    assert not any(acceptable(row, row.response or "") for row in other)


@pytest.mark.parametrize("axis", AXES)
def test_more_conflict_spoils_more_rows(axis: str) -> None:
    spoilt = []
    for conflict in (0.0, 0.25, 0.5, 0.75, 1.0):
        rows = axis_rows(axis, n=900, conflict=conflict)
        spoilt.append(sum(not acceptable(row, row.response or "") for row in rows))
    assert spoilt == sorted(set(spoilt))
    assert spoilt[2] == pytest.approx(spoilt[-1] / 2, rel=0.25)


@pytest.mark.parametrize("axis", AXES)
def test_rows_are_fixed_by_their_seed(axis: str) -> None:
    assert axis_rows(axis, n=60) == axis_rows(axis, n=60)
    assert axis_rows(axis, n=60) != axis_rows(axis, n=60, seed=1)
    assert probe_rows(axis, "test", n=30) == probe_rows(axis, "test", n=30)
    assert probe_rows(axis, "test", n=30) != probe_rows(axis, "test", n=30, seed=1)


@pytest.mark.parametrize("axis", AXES)
def test_rows_are_distinct_and_say_where_they_are_from(axis: str) -> None:
    rows = axis_rows(axis, n=900)
    assert len(rows) == len({row.prompt for row in rows}) == 900
    assert {(row.axis, row.source) for row in rows} == {(axis, f"pocket:train:{axis}")}
    asked = probe_rows(axis, "test", n=100)
    assert len(asked) == len({row.prompt for row in asked}) == 100
    assert {(row.axis, row.response, row.source) for row in asked} == {(axis, None, f"pocket:test:{axis}")}


def test_prompts_are_spread_evenly() -> None:
    probes = Counter(row.probe for row in probe_rows("harmlessness", "test", n=61))
    assert probes == {"harmful": 31, "benign": 30}
    kinds = Counter(row.kind for row in probe_rows("honesty", "test", n=30))
    assert kinds == {"misconception": 10, "invented": 10, "unanswerable": 10}
    families = Counter(row.kind for row in probe_rows("helpfulness", "test", n=64))
    assert len(families) >= 12
    assert max(families.values()) - min(families.values()) <= 1
    # Topics before wordings: no topic twice while another was never asked.
    harmless = [row.group for row in probe_rows("harmlessness", "test", n=20) if row.probe == "benign"]
    assert len(harmless) == len(set(harmless))


@pytest.mark.parametrize("axis", ["kindness", "", "Honesty"])
def test_an_unknown_axis_is_refused(axis: str) -> None:
    with pytest.raises(ConfigError, match=rf"axis '{axis}' has no training data. Known: helpfulness, harmlessness"):
        axis_rows(axis)
    with pytest.raises(ConfigError, match=rf"no prompts for axis '{axis}', split 'test'. Known: helpfulness"):
        probe_rows(axis, "test", n=1)


@pytest.mark.parametrize("name", ["conflict", "other_share"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_and_1_is_refused(name: str, share: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is {share}; it is a share in \[0, 1\]"):
        axis_rows("honesty", **{name: share})


@pytest.mark.parametrize("n", [0, -1])
def test_no_rows_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=rf"n is {n}; ask for at least one row"):
        axis_rows("honesty", n=n)
    with pytest.raises(ConfigError, match=rf"n is {n}; ask for at least one row"):
        probe_rows("honesty", "test", n=n)


def test_more_rows_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"honesty has only about \d+ different training rows; ask for a smaller n"):
        axis_rows("honesty", n=100_000, other_share=0.0)
    with pytest.raises(ConfigError, match=r"split 'test' of harmlessness has 720 prompts; 5000 were asked for"):
        probe_rows("harmlessness", "test", n=10_000)
