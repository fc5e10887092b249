"""Systems made from the experts in other ways, on a copy of the finished run: its experts are not trained again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mocae.stages.training as training_module
import mocae.systems.trinityx as trinityx_module
from mocae.errors import ConfigError
from mocae.evaluation import read_samples
from mocae.models import PlainModel
from mocae.pipelines.run import run
from mocae.types import Sample
from run_for_tests import AXES, tiny_recipe

ORDER = ["honesty", "harmlessness", "helpfulness"]
TRINITYX = {"max_rows": 6, "importance": "mean"}
SYSTEMS: list[Any] = [
    "base",
    *(f"expert:{axis}" for axis in AXES),
    "sum",
    {"name": "arithmetic", "policy": "merge:task-arithmetic"},
    {"name": "two of them", "policy": "merge:task-arithmetic", "options": {"weights": {"honesty": 2.0}}},
    "prompt_only",
    "joint_outcomes",
    {"name": "backwards", "policy": "sequential", "options": {"order": ORDER}},
    {"name": "trinityx", "policy": "trinityx", "options": TRINITYX},
    {"name": "trinityx down", "policy": "trinityx", "options": {**TRINITYX, "target_modules": ["down_proj"]}},
    {"name": "trinityx joint", "policy": "trinityx", "options": {**TRINITYX, "importance": "joint"}},
]


@dataclass(frozen=True)
class Rivals:
    """A run of all rivals: its folder, report, and what was trained on which pairs."""

    out: Path
    recipe: Any
    report: dict[str, Any]
    pairs: dict[str, list[dict[str, str]]]
    plain_prompts: list[str]

    def samples(self, system: str) -> list[Sample]:
        return [sample for sample in read_samples(self.out / "samples.jsonl") if sample.system == system]

    def texts(self, system: str) -> list[str]:
        return [sample.answer.text for sample in self.samples(system)]


@pytest.fixture(scope="module")
def rivals(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Rivals:
    out = shutil.copytree(finished.out, tmp_path_factory.mktemp("rivals") / "out")
    recipe = tiny_recipe(finished.base, systems=SYSTEMS)
    pairs: dict[str, list[dict[str, str]]] = {}
    prompts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        finetune, generate = training_module.finetune, PlainModel.generate

        def trained(base: Any, rows: Any, *args: Any, label: str, **kwargs: Any) -> Any:
            pairs[label] = list(rows)
            return finetune(base, rows, *args, label=label, **kwargs)

        def generated(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            prompts.extend(self.base.tokenizer.batch_decode(input_ids, skip_special_tokens=True))
            return generate(self, input_ids, **kwargs)

        patch.setattr(training_module, "finetune", trained)
        patch.setattr(PlainModel, "generate", generated)
        patch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
        report = run(recipe, out=out, progress=False, overwrite=True).report
    return Rivals(out, recipe, report, pairs, prompts)


def run_with(finished: Any, copy: Path, *systems: Any) -> None:
    always = ["base", *(f"expert:{axis}" for axis in AXES)]
    run(tiny_recipe(finished.base, systems=[*always, *systems]), out=copy, progress=False, overwrite=True)


def test_every_rival_answers_every_prompt(rivals: Rivals) -> None:
    assert list(rivals.report["systems"]) == [s if isinstance(s, str) else s["name"] for s in SYSTEMS]
    assert {len(rivals.texts(name)) for name in rivals.report["systems"]} == {27}


def test_experts_that_are_there_are_not_trained_again(rivals: Rivals) -> None:
    own = {f"expert {axis} (down_proj, gate_proj, up_proj)" for axis in AXES}
    down = {f"expert {axis} (down_proj)" for axis in AXES}
    stages = {f"sequential {i + 1}: {axis}" for i, axis in enumerate(ORDER)}
    assert set(rivals.pairs) == {*own, *down, *stages, "joint_outcomes"}


def test_task_arithmetic_says_what_the_sum_says(rivals: Rivals) -> None:
    assert rivals.texts("arithmetic") == rivals.texts("sum")
    assert rivals.texts("arithmetic") != rivals.texts("base")
    assert all(sample.answer.weights is None for sample in rivals.samples("arithmetic"))


def test_options_of_a_merge_reach_it(rivals: Rivals) -> None:
    assert rivals.texts("two of them") not in (rivals.texts("arithmetic"), rivals.texts("base"))


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ({"policy": "merge:task-arithmetic", "options": {"weights": {"honest": 1.0}}}, "honest"),
        ({"policy": "merge:task-arithmetic", "options": {"wieghts": {}}}, r"'wieghts'.*'weights'"),
        ({"policy": "merge:average", "options": {"base_weight": -2.0}}, "base_weight"),
        ({"policy": "merge:averge"}, r"unknown merge method 'averge'.*Did you mean 'average'"),
        ({"policy": "sequential", "options": {"order": ["honesty"]}}, r"\['honesty'\]; name every axis"),
        (
            {"policy": "sequential", "options": {"order": "honesty"}},
            r"systems\.4\.options\.order: .*got 'honesty'",
        ),
        ({"policy": "trinityx", "options": {"taw": 1.0}}, r"systems\.4\.options\.taw"),
        ({"policy": "trinityx", "options": {"tau": 0.0}}, r"systems\.4\.options\.tau: .*got 0.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    finished: Any, copy: Path, system: dict[str, Any], message: str, work: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_with(finished, copy, {"name": "rival", **system})
    assert work.trained == work.asked == []  # refused before anything is made


def test_prompt_only_puts_all_injections_in_front(rivals: Rivals) -> None:
    injection = " ".join(f"Think of {axis}." for axis in AXES)
    with_injection = [prompt for prompt in rivals.plain_prompts if injection in prompt]
    assert len(with_injection) == 27
    questions = {sample.answer.example.prompt for sample in rivals.samples("prompt_only")}
    assert {q for q in questions for prompt in with_injection if 0 <= prompt.find(injection) < prompt.find(q)} == (
        questions
    )


def test_joint_outcomes_learns_accepted_answers_of_the_calibration_split(rivals: Rivals) -> None:
    judged = list(read_samples(rivals.out / "outcomes" / "outcomes.jsonl"))
    accepted = {(s.answer.example.prompt, s.answer.text) for s in judged if s.acceptable and s.answer.text.strip()}
    refused = {(s.answer.example.prompt, s.answer.text) for s in judged if not s.acceptable} - accepted
    assert accepted
    assert refused
    pairs = rivals.pairs["joint_outcomes"]
    assert len(pairs) == 3 * 12 + len(accepted)
    learned = {(p, t) for p, t in accepted | refused for row in pairs if p in row["prompt"] and t in row["completion"]}
    assert accepted <= learned
    tested = {sample.answer.example.prompt for sample in rivals.samples("base")}
    assert not any(prompt in row["prompt"] for prompt in tested for row in pairs)


def test_sequential_goes_in_the_order_given(rivals: Rivals) -> None:
    labels = [label for label in rivals.pairs if label.startswith("sequential")]
    assert labels == [f"sequential {i + 1}: {axis}" for i, axis in enumerate(ORDER)]
    assert rivals.report["forgetting"]["order"] == ORDER
    last = list(read_samples(rivals.out / "answers" / "backwards" / "samples.jsonl"))
    assert [sample.answer.text for sample in last] == rivals.texts("backwards")


def test_trinityx_reports_its_weights_by_prompt(rivals: Rivals) -> None:
    for system in ("trinityx", "trinityx down"):
        for sample in rivals.samples(system):
            assert sample.answer.weights is not None
            assert list(sample.answer.weights) == list(AXES)
            assert sum(sample.answer.weights.values()) == pytest.approx(1, abs=1e-3)
        record = json.loads(
            (rivals.out / "trinityx" / "router" / system.replace(" ", "_") / "training.json").read_text()
        )
        assert record["n_steps"] == 5  # 18 rows, 4 at once
        assert sum(record["gamma"]) == pytest.approx(1)


def test_trinityx_trains_experts_in_feed_forward_blocks_alone(rivals: Rivals) -> None:
    for folder, targets in (("experts", {"gate_proj", "up_proj", "down_proj"}), ("experts-down_proj", {"down_proj"})):
        for axis in AXES:
            config = rivals.out / "trinityx" / folder / axis / "adapter_config.json"
            assert set(json.loads(config.read_text(encoding="utf-8"))["target_modules"]) == targets


def test_importance_can_be_that_of_joint_training(rivals: Rivals) -> None:
    names = ("trinityx", "trinityx_joint")
    folders = [rivals.out / "trinityx" / "router" / name / "training.json" for name in names]
    mean, joint = (json.loads(folder.read_text(encoding="utf-8"))["gamma"] for folder in folders)
    assert sum(joint) == pytest.approx(1)
    assert joint != pytest.approx(mean, abs=1e-4)


@pytest.mark.usefixtures("work")
def test_nothing_is_made_again(rivals: Rivals, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    for name in (
        "stages.training.finetune",
        "stages.answers.examine",
        "stages.answers.examine_chosen",
        "systems.trinityx.train_router",
    ):
        monkeypatch.setattr(f"mocae.{name}", forbidden)
    again = run(rivals.recipe, out=rivals.out, progress=False).report
    assert again["systems"] == rivals.report["systems"]


@pytest.mark.usefixtures("work")
def test_a_collapsed_router_is_a_warning(rivals: Rivals, finished: Any, copy: Path, monkeypatch: Any) -> None:
    fit = trinityx_module.train_router

    def collapsed(*args: Any, **kwargs: Any) -> Any:
        return replace(fit(*args, **kwargs), entropy=0.012, collapsed=True)

    monkeypatch.setattr(trinityx_module, "train_router", collapsed)
    shutil.copytree(rivals.out / "trinityx" / "experts", copy / "trinityx" / "experts")
    systems = ["base", *(f"expert:{axis}" for axis in AXES), {"name": "one", "policy": "trinityx"}]
    report = run(tiny_recipe(finished.base, systems=systems), out=copy, progress=False, overwrite=True).report
    assert any("one: routing collapsed (entropy of the mean weights 0.012 of 1)" in w for w in report["notes"])
