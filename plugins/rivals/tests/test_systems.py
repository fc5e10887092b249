"""The systems and merges of this package in one run, and what the run measured loaded, exported and resumed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mocae
from mocae.bank import load_peft
from mocae.errors import ConfigError, PluginError
from mocae.evaluation import read_samples
from mocae.merging import MERGE_METHODS, TaskVector
from mocae.pipelines.artifact import AlignedModel
from mocae.pipelines.export import export
from mocae.pipelines.run import run
from mocae.systems import SYSTEMS as KINDS
from mocae.types import Sample
from mocae_rivals.linear_peft import linear_peft_error
from run_for_tests import AXES, tiny_recipe

FACTORS = {"honesty": 2.0, "helpfulness": 1.0}
H3 = {"max_rows": 6, "expert_learning_rate": 5e-3}
OWN: list[Any] = [
    {"name": "ties", "policy": "merge:ties", "options": {"density": 0.5}},
    {"name": "factors", "policy": "merge:linear-peft", "options": {"weights": FACTORS}},
    {"name": "arc", "policy": "merge:slerp", "options": {"t": 0.5, "experts": ["honesty", "helpfulness"]}},
    {"name": "x-lora", "policy": "xlora", "options": {"max_rows": 6, "learning_rate": 0.05}},
    {"name": "hma", "policy": "hma", "options": {"n_blocks": 2, "steps": 4, "learning_rate": 0.3, "max_rows": 6}},
    {"name": "arrow", "policy": "arrow"},
    {"name": "arrow purified", "policy": "arrow", "options": {"subtract": "joint", "top_k": 2}},
    {"name": "h3", "policy": "h3fusion", "options": H3},
    {"name": "h3 gates", "policy": "h3fusion", "options": {**H3, "train_experts": False}},
]
NAMES = [system["name"] for system in OWN]
MERGED = ("ties", "factors", "arc", "hma")


@dataclass(frozen=True)
class Rivals:
    """A run of all systems: its folder, recipe and report."""

    out: Path
    recipe: Any
    report: dict[str, Any]

    def samples(self, system: str) -> list[Sample]:
        return [sample for sample in read_samples(self.out / "samples.jsonl") if sample.system == system]

    def texts(self, system: str) -> list[str]:
        return [sample.answer.text for sample in self.samples(system)]


@pytest.fixture(scope="module")
def rivals(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Rivals:
    out = shutil.copytree(finished.out, tmp_path_factory.mktemp("rivals") / "out")
    recipe = tiny_recipe(finished.base, systems=["base", *(f"expert:{axis}" for axis in AXES), *OWN])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
        return Rivals(out, recipe, run(recipe, out=out, overwrite=True, progress=False).report)


@pytest.fixture(scope="module")
def model(rivals: Rivals) -> AlignedModel:
    return mocae.load(rivals.out, device="cpu")


def test_every_system_answers_every_prompt_in_its_own_way(rivals: Rivals) -> None:
    assert {len(rivals.texts(name)) for name in NAMES} == {27}
    assert len({tuple(rivals.texts(name)) for name in ("base", *NAMES)}) > len(NAMES) - 2
    assert rivals.texts("arrow purified") != rivals.texts("arrow")
    assert [name for name in NAMES if rivals.texts(name) == rivals.texts("base")] == []


def test_every_system_has_one_line_from_its_source(rivals: Rivals) -> None:
    lines = KINDS.describe()
    for system in OWN:
        kind = system["policy"].partition(":")[0]
        assert rivals.report["systems"][system["name"]]["about"] == lines[kind]
        assert not lines[kind].startswith("from ")


@pytest.mark.parametrize("name", NAMES)
def test_a_system_answers_as_the_run_measured(model: AlignedModel, rivals: Rivals, name: str) -> None:
    for sample in rivals.samples(name)[::4]:
        reply = model.reply(sample.answer.example.prompt, system=name)
        assert reply.text == sample.answer.text
        weights = sample.answer.weights
        assert not weights or reply.weights == pytest.approx(dict(weights), abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_is_exported_as_a_merged_model_or_refused(rivals: Rivals, name: str, tmp_path: Path) -> None:
    if name in MERGED:
        export(rivals.out, to="merged", out=tmp_path / "merged", system=name)
        assert list((tmp_path / "merged").rglob("*.safetensors"))
        return
    with pytest.raises(ConfigError, match=r"token by token inside the model, which no export\s+format can express"):
        export(rivals.out, to="merged", out=tmp_path / "merged", system=name)


def test_a_merge_that_is_not_exact_tells_its_error(rivals: Rivals) -> None:
    vectors = {axis: TaskVector.from_lora(load_peft(rivals.out / "experts" / axis)) for axis in AXES}
    error = linear_peft_error(vectors, weights=FACTORS)
    assert error > 0.1
    assert [note for note in rivals.report["notes"] if "relative error" in note] == [
        "factors: PEFT's linear merge adds factors, not weights; its relative error against the exact sum is "
        f"{error:.2f} (Frobenius norm over all linears)"
    ]


@pytest.mark.parametrize(("system", "folder"), [("x-lora", "xlora/x-lora"), ("h3", "h3fusion/fused/h3")])
def test_mixtures_train_their_router_and_report_its_weights(rivals: Rivals, system: str, folder: str) -> None:
    record = json.loads((rivals.out / folder / "training.json").read_text(encoding="utf-8"))
    assert record["n_steps"] == 5  # 18 rows, 4 at once
    assert record["gradient_norm"] > 0
    weights = [sample.answer.weights for sample in rivals.samples(system)]
    assert all(
        w is not None and list(w) == list(AXES) and sum(w.values()) == pytest.approx(1, abs=1e-3) for w in weights
    )
    assert len({tuple(w.values()) for w in weights if w}) > 1


def test_blocks_of_layers_are_averaged_with_fitted_weights(rivals: Rivals) -> None:
    record = json.loads((rivals.out / "hma" / "hma" / "weights.json").read_text(encoding="utf-8"))
    assert record["boundaries"] == [2]  # experts sit on layers 1 and 2
    for axis in AXES:
        assert sum(block[axis] for block in record["blocks"]) / 2 == pytest.approx(1 / 3)
    assert record["blocks"][0] != pytest.approx(record["blocks"][1], abs=1e-3)
    assert len(record["losses"]) == 4
    assert min(record["losses"][1:]) < record["losses"][0]


def test_experts_of_h3fusion_move_behind_the_gates_unless_frozen(rivals: Rivals) -> None:
    def expert(path: str, prefix: str) -> torch.Tensor:
        return load_file(rivals.out / "h3fusion" / path)[f"{prefix}up_proj.weight"]

    own = [expert(f"experts/{axis}/blocks.safetensors", "1.") for axis in AXES]
    assert not torch.equal(own[0], own[1])
    for k, tensor in enumerate(own):
        assert torch.equal(expert("fused/h3_gates/h3fusion.safetensors", f"1.experts.{k}."), tensor)
        assert not torch.equal(expert("fused/h3/h3fusion.safetensors", f"1.experts.{k}."), tensor)


def test_arrow_subtracts_what_joint_training_learned(rivals: Rivals) -> None:
    purified = load_peft(rivals.out / "arrow" / "arrow_purified" / "honesty")
    expert, joint = (
        TaskVector.from_lora(load_peft(rivals.out / name)) for name in ("experts/honesty", "comparison/joint")
    )
    module = expert.modules[0]
    torch.testing.assert_close(purified.layers[module].delta(), expert.dense(module) - joint.dense(module))


@pytest.mark.usefixtures("work")
def test_nothing_is_made_again(rivals: Rivals, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    for name in ("h3fusion.finetune_blocks", "h3fusion.train_h3fusion", "xlora.train_xlora", "hma.fit_block_weights"):
        monkeypatch.setattr(f"mocae_rivals.{name}", forbidden)
    for name in ("training.finetune", "answers.examine", "answers.examine_chosen"):
        monkeypatch.setattr(f"mocae.stages.{name}", forbidden)
    again = run(rivals.recipe, out=rivals.out, progress=False).report
    assert again["systems"] == rivals.report["systems"]


def test_experts_are_trained_without_gradients(finished: Any, tmp_path: Path) -> None:
    settings = ("experts.optimizer.method=mezo", "experts.optimizer.options.perturbation=0.01")
    recipe = tiny_recipe(finished.base, *settings, systems=["base", "uniform"])
    run(recipe, out=tmp_path / "out", progress=False)
    record = json.loads((tmp_path / "out" / "experts" / "honesty" / "training.json").read_text(encoding="utf-8"))
    assert record["n_steps"] == 3
    with pytest.raises(ConfigError, match=r"optimizer\.options: training method 'mezo': option 'perturbation': got -1"):
        run(tiny_recipe(finished.base, settings[0], "experts.optimizer.options.perturbation=-1"), out=tmp_path / "no")
    with pytest.raises(ConfigError, match=r"unknown training method 'mzo'.*Did you mean 'mezo'"):
        run(tiny_recipe(finished.base, "experts.optimizer.method=mzo"), out=tmp_path / "no")


def test_a_run_is_read_without_the_systems_of_a_package_that_is_gone(
    rivals: Rivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocae.registry.entry_points", lambda **_: ())
    monkeypatch.setattr(KINDS, "_loaded", {})
    monkeypatch.setattr(MERGE_METHODS, "_loaded", {})
    model = mocae.load(rivals.out, device="cpu")
    assert not set(NAMES) & set(model.artifact.systems)
    assert model.reply("Say yes.", system="uniform").text is not None
    for name, what in (("x-lora", "system 'xlora'"), ("ties", "merge method 'ties'")):
        with pytest.raises(
            PluginError, match=f"{what}: part of mocae-rivals, which is not installed; run: pip install"
        ):
            mocae.load(rivals.out, system=name, device="cpu")
