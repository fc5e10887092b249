from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from mocae.config import SourceConfig, parse_recipe
from mocae.judges import JUDGES
from mocae.stages.judging import make_judges
from mocae.stages.rows import Rows
from mocae.types import Answer, Example, Verdict
from recipes_for_tests import small_recipe


class Learner:
    """A judge that learns, and remembers what it was kept from."""

    name = "learner"
    judgements = ("correct",)
    quality = None

    def __init__(self, *, labelled: Path, seed: int = 0, exclude_prompts: Collection[str] = ()) -> None:
        self.labelled = labelled
        self.seed = seed
        self.excluded = set(exclude_prompts)

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        return [{} for _ in answers]


@pytest.fixture(autouse=True)
def learner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES._loaded, "learner", Learner)


def rows(*, test: str = "t", calibration: str = "c") -> Rows:
    def one(prompt: str) -> dict[str, list[Example]]:
        return {"helpfulness": [Example(prompt, "helpfulness", "task")]}

    return Rows(one("train"), one(calibration), one(test), 0)


def recipe(root: Path, *judges: Any, **changes: Any) -> Any:
    return parse_recipe(small_recipe(judges=list(judges), data_root=str(root), **changes))


LEARNER = {"judge": "learner", "options": {"labelled": "labels.jsonl"}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "labels.jsonl").write_text(json.dumps({"label": 1}), encoding="utf-8")
    return tmp_path


def test_judges_come_in_order_with_their_options(root: Path) -> None:
    made = make_judges(recipe(root, LEARNER, {"judge": "pocket"}, seed=4), rows())
    assert [judge.name for judge in made.judges] == ["learner", "pocket"]
    learner: Any = made.judges[0]
    assert (learner.labelled, learner.seed) == (root / "labels.jsonl", 4)


def test_judges_are_kept_from_what_they_judge(root: Path) -> None:
    learner: Any = make_judges(recipe(root, LEARNER), rows()).judges[0]
    assert learner.excluded == {Example(prompt, "any", "task").id for prompt in ("t", "c")}


def test_a_judge_does_not_learn_the_rows_an_expert_learns_from_the_same_file(root: Path) -> None:
    shared = recipe(root, LEARNER)
    axis = shared.axes[0].model_copy(
        update={"train": (SourceConfig(source="table", path=Path("labels.jsonl"), hash_range=(0.0, 0.5)),)}
    )
    shared = shared.model_copy(update={"axes": (axis, *shared.axes[1:])})
    learner: Any = make_judges(shared, rows()).judges[0]
    assert learner.excluded == {Example(prompt, "any", "task").id for prompt in ("t", "c", "train")}


def test_the_key_depends_on_all_that_changes_verdicts(root: Path) -> None:
    def key(*judges: Any, seed: int = 0, **prompts: str) -> str:
        return make_judges(recipe(root, *judges, seed=seed), rows(**prompts)).key

    first = key(LEARNER)
    assert first == key(LEARNER)
    assert first != key(LEARNER, seed=1)
    assert first != key(LEARNER, {"judge": "pocket"})
    assert first != key(LEARNER, test="another")
    (root / "labels.jsonl").write_text(json.dumps({"label": 0}), encoding="utf-8")
    assert first != key(LEARNER)


def test_judges_that_do_not_learn_say_the_same_whatever_is_tested(root: Path) -> None:
    first, second = (make_judges(recipe(root, {"judge": "pocket"}), rows(test=test)).key for test in ("t", "u"))
    assert first == second
