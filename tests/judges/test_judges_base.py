from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from mocae.errors import ConfigError, DataError, PluginError
from mocae.judges import JUDGES, JudgeQuality, build_judge, judge_each
from mocae.judges.overlap import OverlapJudge
from mocae.types import Answer, Example, Verdict


class _Learner:
    """Stands for a judge that learns: remembers what it was made with."""

    name = "learner"
    judgements = ("correct",)
    quality: JudgeQuality | None = None

    def __init__(self, *, labelled: Path, seed: int = 0, exclude_prompts: Collection[str] = ()) -> None:
        self.made_with = {"labelled": labelled, "seed": seed, "exclude_prompts": exclude_prompts}

    def judge(self, answers: Any) -> list[dict[str, Verdict]]:
        return [{} for _ in answers]


@pytest.fixture
def _learner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES._loaded, "learner", _Learner)


def _made_with(**arguments: Any) -> dict[str, Any]:
    judge = build_judge("learner", **arguments)
    assert isinstance(judge, _Learner)
    return judge.made_with


@pytest.mark.usefixtures("_learner")
def test_a_judge_that_learns_is_told_seed_root_and_excluded_prompts() -> None:
    made = _made_with(options={"labelled": "a.jsonl"}, data_root=Path("/root"), seed=3, exclude_prompts={"id"})
    assert made == {"labelled": Path("/root/a.jsonl"), "seed": 3, "exclude_prompts": {"id"}}
    made = _made_with(options={"labelled": "/b.jsonl", "seed": 7}, data_root=Path("/root"), seed=3)
    assert made == {"labelled": Path("/b.jsonl"), "seed": 7, "exclude_prompts": ()}


@pytest.mark.usefixtures("_learner")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"judge 'learner' needs the option 'labelled'; options given: none"),
        ({"label": "a"}, r"unknown option of judge 'learner' 'label'.* Did you mean 'labelled'\?"),
        ({"labelled": "a", "seed": "x"}, r"judge 'learner': option 'seed': got 'x'; it should be a valid integer"),
        ({"labelled": "a", "exclude_prompts": []}, r"unknown option of judge 'learner' 'exclude_prompts'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_judge("learner", options)


def test_options_reach_a_judge_that_does_not_learn() -> None:
    judge = build_judge("reference-overlap", {"threshold": 0.4}, seed=1, exclude_prompts={"id"})
    assert isinstance(judge, OverlapJudge)
    with pytest.raises(PluginError, match=r"unknown judge 'refsual'.* Did you mean 'refusal'\?"):
        build_judge("refsual")


def test_every_judge_loads() -> None:
    for name in JUDGES:
        assert callable(JUDGES.get(name))


def test_quality_by_hand() -> None:
    quality = JudgeQuality.measure([0.9, 0.5, 0.4, 0.2, 0.1], [True, True, True, False, False], note="n")
    assert (quality.n, quality.accuracy, quality.auroc, quality.note) == (5, 0.8, 1.0, "n")
    assert quality.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    with pytest.raises(DataError, match="AUROC needs positive and negative rows"):
        JudgeQuality.measure([0.9], [True], note="n")


def test_one_failing_answer_is_unscored_and_costs_the_others_nothing() -> None:
    def one(answer: Answer) -> Verdict | None:
        if answer.text == "broken":
            raise ValueError("cannot read this")
        return None if answer.text == "other" else Verdict(1.0, "yes")

    answers = [Answer(Example("p", "a", "task"), text) for text in ("fine", "broken", "other")]
    fine, broken, other = judge_each(answers, one, judge="j", judgement="correct")
    assert (fine["correct"].score, fine["correct"].label, fine["correct"].judge) == (1.0, "yes", "j")
    assert (broken["correct"].score, broken["correct"].raw) == (None, "ValueError: cannot read this")
    assert broken["correct"].judge == "j"
    assert other == {}
