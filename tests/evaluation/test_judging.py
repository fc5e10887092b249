from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mocae.errors import JudgeError, PluginError
from mocae.evaluation import AnswerLog, judge_answers
from mocae.types import Answer, Example, Verdict


class Fixed:
    """Gives every answer what `scores` says about its text."""

    quality = None

    def __init__(self, name: str, scores: Mapping[str, Mapping[str, float | None]]) -> None:
        self.name = name
        self.judgements = ("correct", "refusal", "unsafe")
        self.scores = scores

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        found = [self.scores.get(answer.text, {}) for answer in answers]
        return [{name: Verdict(score, judge=self.name) for name, score in row.items()} for row in found]


def answers(*texts: str, probe: str = "task") -> list[Answer]:
    return [Answer(Example(f"prompt {i}", "any", probe), text) for i, text in enumerate(texts)]


def test_the_first_judge_that_scores_wins() -> None:
    first = Fixed("first", {"x": {"correct": 1.0}, "y": {"correct": None}, "z": {}})
    second = Fixed("second", {"x": {"correct": 0.0}, "y": {"correct": 0.0}, "z": {"correct": 1.0}})
    judged = judge_answers("base", answers("x", "y", "z"), [first, second])
    found = [(s.verdicts["correct"].judge, s.verdicts["correct"].score, s.acceptable) for s in judged]
    assert found == [("first", 1.0, True), ("second", 0.0, False), ("second", 1.0, True)]
    assert [s.answer.text for s in judged] == ["x", "y", "z"]
    assert {s.system for s in judged} == {"base"}


def test_a_judge_is_asked_only_for_what_is_used() -> None:
    first = Fixed("first", {"x": {"correct": 1.0}, "y": {"correct": None}})
    second = Fixed("second", {text: {"correct": 0.0} for text in "xyz"})
    asked: list[str] = []

    def judge(answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        asked.extend(answer.text for answer in answers)
        return Fixed.judge(second, answers)

    second.judge, second.judgements = judge, ("correct",)  # type: ignore[method-assign,assignment]
    judge_answers("base", answers("x", "y", "z"), [first, second])
    assert asked == ["y", "z"]


def test_what_nobody_scored_is_neither_acceptable_nor_not() -> None:
    silent = Fixed("silent", {"x": {"correct": None}})
    judged = judge_answers("base", answers("x", "y"), [silent, silent])
    assert [s.acceptable for s in judged] == [None, None]
    assert judged[0].verdicts["correct"].score is None
    assert judged[1].verdicts == {}


def test_judges_add_to_each_other() -> None:
    refusal = Fixed("refusal", {"x": {"refusal": 0.0}})
    correct = Fixed("overlap", {"x": {"correct": 1.0}})
    (sample,) = judge_answers("base", answers("x", probe="benign"), [refusal, correct])
    assert {name: v.judge for name, v in sample.verdicts.items()} == {"refusal": "refusal", "correct": "overlap"}
    assert sample.acceptable is True


def test_a_judge_that_loses_answers_is_refused() -> None:
    class Short(Fixed):
        def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
            return super().judge(answers)[:-1]

    with pytest.raises(
        JudgeError, match=r"judge 'short' gave verdicts on 1 of 2 answers of 'base'; it must return one"
    ):
        judge_answers("base", answers("x", "y"), [Short("short", {})])


def test_verdicts_that_are_kept_are_not_asked_again(tmp_path: Path) -> None:
    first, second = Fixed("one", {"x": {"correct": 1.0}}), Fixed("one", {"y": {"correct": 0.0}})
    samples = judge_answers("base", answers("x", "y"), [first, second], log=AnswerLog(tmp_path))
    silent = Fixed("one", {})
    again = judge_answers("base", answers("x", "y"), [silent, silent], log=AnswerLog(tmp_path))
    assert [s.acceptable for s in samples] == [True, False]
    assert again == samples  # two judges of one name are told apart by their place
    fresh = judge_answers("base", answers("x", "y"), [silent, silent], log=AnswerLog(tmp_path / "new"))
    assert [s.acceptable for s in fresh] == [None, None]


def test_an_unknown_probe_is_refused() -> None:
    with pytest.raises(PluginError, match="unknown probe 'riddle'"):
        judge_answers("base", answers("x", probe="riddle"), [Fixed("first", {})])
