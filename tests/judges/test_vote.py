from __future__ import annotations

from collections.abc import Sequence

import pytest

from mocae.errors import ConfigError
from mocae.judges import JudgeQuality, build_judge, with_correct
from mocae.judges.vote import VotingJudge
from mocae.types import Answer, Example, Verdict

ANSWER = Answer(Example("Say hello.", "a", "task", facts={"reference": "hello there"}), "hello there")


class Fixed:
    judgements = ("correct",)
    quality: JudgeQuality | None = None

    def __init__(self, score: float | None, *, silent: bool = False) -> None:
        self.name = f"fixed {score}"
        self._score, self._silent = score, silent

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        return [{} if self._silent else {"correct": Verdict(self._score, "", self.name)} for _ in answers]


@pytest.mark.parametrize(
    ("scores", "score", "label"),
    [
        ((1.0, 0.9, 0.0), 2 / 3, "2 of 3"),
        ((0.4, 0.1, 1.0), 1 / 3, "1 of 3"),
        ((1.0, None, 1.0), 1.0, "2 of 2"),
        ((1.0, None, 0.0), None, "unscored: 1 of 2"),
        ((1.0, None, None), None, "unscored: 1 of 1"),
        ((1.0, 0.0), None, "unscored: 1 of 2"),
    ],
)
def test_the_majority_of_those_that_voted_counts(
    scores: tuple[float | None, ...], score: float | None, label: str
) -> None:
    verdict = VotingJudge([Fixed(s) for s in scores]).judge([ANSWER])[0]["correct"]
    assert (verdict.score, verdict.label) == (score, label)
    assert all(f"fixed {s}" in verdict.raw for s in scores)


def test_a_draw_of_answers_is_half_a_vote_for_each() -> None:
    def compared(*wins: float) -> tuple[float | None, float | None]:
        judges = [Fixed(win) for win in wins]
        for judge in judges:
            judge.judgements = ("win", "correct")
            judge.judge = lambda answers, win=judge._score: [with_correct(Verdict(win)) for _ in answers]  # type: ignore[method-assign,misc]
        verdicts = VotingJudge(judges).judge([ANSWER])[0]
        return verdicts["win"].score, verdicts["correct"].score

    assert compared(0.5, 0.5, 0.5) == (0.5, 0.0)  # flips are no votes for the answer
    assert compared(1.0, 0.5, 0.5) == (2 / 3, 1 / 3)
    assert compared(1.0, 1.0, 0.5) == (2.5 / 3, 2 / 3)


def test_nobody_who_has_to_say_something_says_nothing() -> None:
    assert VotingJudge([Fixed(1, silent=True), Fixed(1, silent=True)]).judge([ANSWER]) == [{}]


def test_a_vote_is_named_in_a_recipe() -> None:
    measures = [{"judge": "reference-overlap", "options": {"measure": m}} for m in ("rouge-l", "token-f1")]
    judge = build_judge("vote", {"judges": measures})
    assert judge.name == "vote(reference-overlap, reference-overlap)"
    assert judge.judge([ANSWER])[0]["correct"].label == "2 of 2"


def test_votes_that_cannot_be_counted_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 1 judges; expected at least two"):
        VotingJudge([Fixed(1)])
    with pytest.raises(ConfigError, match="quorum is 3; expected 1 to 2"):
        VotingJudge([Fixed(1), Fixed(1)], quorum=3)
    with pytest.raises(ConfigError, match="each entry has 'judge'"):
        build_judge("vote", {"judges": [{"name": "refusal"}]})
