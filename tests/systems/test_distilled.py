"""One adapter tuned on a mixture's answers to the training prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.config import Recipe
from mocae.errors import DataError, MocaeError
from mocae.evaluation import AnswerLog, read_samples
from mocae.pipelines.run import run
from mocae.stages.rows import read_rows_of
from mocae.systems import build_systems
from run_for_tests import AXES, tiny_base, tiny_recipe

EXPERTS = {"weights": dict.fromkeys(AXES, 1.0)}


def recipe_of(base: Path, *others: Any, **options: Any) -> Recipe:
    teacher = {"name": "all", "policy": "static", "options": EXPERTS}
    one = {"name": "student", "policy": "distilled", "options": {"teacher": "all", **options}}
    return tiny_recipe(base, systems=[teacher, one, *others])


def test_a_teacher_answers_the_training_prompts_and_a_kill_keeps_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_base(tmp_path / "base"), keep_cut=True)
    add, kept = AnswerLog.add_answers, []

    def killed(log: AnswerLog, answers: Any, seconds: float) -> None:
        add(log, answers, seconds)
        kept.append(len(list(answers)))
        if len(kept) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerLog, "add_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, out=tmp_path / "out", progress=False)
    run(recipe, out=tmp_path / "out", progress=False)
    samples = list(read_samples(tmp_path / "out" / "distilled" / "student" / "samples.jsonl"))
    prompts = {row.id for row in read_rows_of(recipe).all_of("train")}
    assert {sample.answer.example.id for sample in samples} == prompts
    assert [sample.verdicts for sample in samples] == [{}] * len(samples)
    training = json.loads((tmp_path / "out" / "comparison" / "student" / "training.json").read_text(encoding="utf-8"))
    assert training["n_rows"] == sum(bool(sample.answer.text.strip()) for sample in samples)


def test_answers_without_an_end_teach_nothing(tmp_path: Path) -> None:
    recipe = recipe_of(tiny_base(tmp_path / "base"))  # its answers never end within so few tokens
    with pytest.raises(DataError, match=r"systems.student: no answer of 'all' .*options.keep_cut"):
        run(recipe, out=tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("oracle", r"'oracle' cannot be one: it chooses by the verdicts"),
        ("other", r"'other' cannot be one: it learns from a teacher itself"),
        ("student", r"unknown system 'student'"),
    ],
)
def test_a_teacher_answers_any_prompt(tmp_path: Path, teacher: str, message: str) -> None:
    recipe = recipe_of(tmp_path, {"name": "other", "policy": "distilled", "options": {}}, teacher=teacher)
    with pytest.raises(MocaeError, match=message):
        build_systems(recipe)
