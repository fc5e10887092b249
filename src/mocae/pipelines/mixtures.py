"""Mixtures of other papers as systems: PEFT's X-LoRA and Arrow over the same experts, and H3Fusion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file

from mocae.bank import load_peft, save_peft
from mocae.config import ArrowConfig, H3FusionConfig, SystemConfig, XLoraConfig, rival_options
from mocae.experts import given_back
from mocae.files import read_json, read_tensors
from mocae.merging import TaskVector
from mocae.mixtures import (
    H3FusionMixture,
    H3Losses,
    MixtureTraining,
    XLoraMixture,
    load_mixtures,
    on_arrow,
    on_h3fusion,
    on_xlora,
    save_mixtures,
    scaling_head,
    train_h3fusion,
    train_xlora,
)
from mocae.models import LoadedBase, PlainModel
from mocae.pipelines.contest import Contest
from mocae.pipelines.rivals import ROUTER_TRAINING, collapse_warnings, router_rows, task_vectors
from mocae.pipelines.store import Stage, folder_name
from mocae.pipelines.systems import Answered
from mocae.pipelines.training import first_expert_layer

__all__ = ["arrow", "h3fusion", "xlora"]


def xlora(contest: Contest, system: SystemConfig) -> tuple[Answered, list[str]]:
    """Return the answers of PEFT's X-LoRA over the experts, and warnings for the report.

    Raises:
        ConfigError: an option does not fit.
        TrainingError: the head gets no gradient from the language-model loss, or a loss is not finite.
    """
    config: XLoraConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    base, keys = contest.base, contest.expert_keys
    folders = [stage.folder for stage in contest.experts.values()]

    def on_base() -> PeftModel:
        return on_xlora(
            base.model,
            folders,
            seed=contest.recipe.seed,
            top_k=config.top_k,
            temperature=config.softmax_temperature,
            layerwise=config.layerwise_scalings,
            depth=config.xlora_depth,
            hidden=config.xlora_size,
        )

    optimizer, max_length = contest.recipe.experts.optimizer, contest.recipe.experts.max_length
    rows = router_rows(contest, config.max_rows)

    def fit(folder: Path) -> None:
        with _taken(contest):
            wrapped = on_base()
            record = train_xlora(
                base,
                wrapped,
                rows,
                learning_rate=config.learning_rate,
                epochs=config.epochs,
                batch_size=optimizer.batch_size,
                max_length=max_length,
                seed=contest.recipe.seed,
            )
            save_file(dict(scaling_head(wrapped).state_dict()), str(folder / "xlora.safetensors"))
            _note(record, folder)

    inputs = {
        "experts": keys,
        "config": config.model_dump(mode="json"),
        "rows": rows,
        "batch_size": optimizer.batch_size,
        "max_length": max_length,
        "seed": contest.recipe.seed,
        "training": ROUTER_TRAINING,
    }
    head = contest.store.stage(f"xlora/{folder_name(system.name)}", inputs, fit)

    def answer(folder: Path) -> None:
        with _taken(contest):
            wrapped = on_base()
            scaling_head(wrapped).load_state_dict(read_tensors(head.folder / "xlora.safetensors"))
            model = XLoraMixture(base, wrapped, contest.recipe.axis_names)
            contest.examiner.examine(system.name, model, folder, _adapters(contest) + _trained(head))

    answered = contest.examiner.stage(system.name, {"head": head.key, "experts": keys}, answer)
    return answered, collapse_warnings(system.name, head)


def arrow(contest: Contest, system: SystemConfig) -> Answered:
    """Return the answers of PEFT's Arrow over the experts, which trains nothing.

    Raises:
        ConfigError: an option does not fit, or the experts differ in rank or linears.
    """
    config: ArrowConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    base = contest.base
    folders, keys = [stage.folder for stage in contest.experts.values()], contest.expert_keys
    if config.subtract == "joint":
        purified = _without_joint(contest, folder_name(system.name))
        folders, keys = [purified.folder / axis for axis in contest.recipe.axis_names], [["purified", purified.key]]

    def answer(folder: Path) -> None:
        with _taken(contest):
            wrapped = on_arrow(
                base.model,
                folders,
                top_k=config.top_k,
                temperature=config.router_temperature,
                seed=contest.recipe.seed,
            )
            on_base: Any = wrapped  # it generates like the model it wraps
            model = PlainModel(LoadedBase(on_base, base.tokenizer, base.description), each_token=True)
            n_active = sum(load_peft(place).n_parameters for place in folders)
            contest.examiner.examine(system.name, model, folder, n_active)

    inputs = {"arrow": config.model_dump(mode="json"), "experts": keys, "seed": contest.recipe.seed}
    return contest.examiner.stage(system.name, inputs, answer)


def _without_joint(contest: Contest, name: str) -> Stage:
    """Return the experts minus the task vector of joint training, exactly: ranks add up (GenKnowSub)."""
    with contest.bare():
        joint = contest.trainer.joint(contest.rows.all_of("train"))
    general = TaskVector.from_lora(load_peft(joint.folder, name="joint"))

    def make(folder: Path) -> None:
        for axis, vector in task_vectors(contest.experts).items():
            save_peft((vector - general).to_lora(axis), folder / axis)

    return contest.store.stage(f"arrow/{name}", {"experts": contest.expert_keys, "joint": joint.key}, make)


def h3fusion(contest: Contest, system: SystemConfig) -> tuple[Answered, list[str]]:
    """Return the answers of an H3Fusion mixture, and warnings for the report.

    Whole feed-forward blocks are tuned for each axis, then gates, and with `train_experts` the blocks too, on the rows
    of all axes.

    Raises:
        ConfigError: an option does not fit.
        TrainingError: the gates get no gradient from the language-model loss, or a loss is not finite.
    """
    config: H3FusionConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    base, recipe = contest.base, contest.recipe
    from_layer = first_expert_layer(recipe.experts, base) if config.from_layer is None else config.from_layer
    with contest.bare():
        experts = {
            axis: contest.trainer.blocks(
                axis,
                rows,
                from_layer=from_layer,
                learning_rate=config.expert_learning_rate,
                epochs=config.expert_epochs,
            )
            for axis, rows in contest.rows.train.items()
        }
    keys = [[axis, stage.key] for axis, stage in experts.items()]  # in the order of the weights
    folders = [stage.folder for stage in experts.values()]
    rows = router_rows(contest, config.max_rows)

    def fit(folder: Path) -> None:
        with _taken(contest):
            mixtures = on_h3fusion(base, folders, top_k=config.top_k, from_layer=from_layer, seed=recipe.seed)
            record = train_h3fusion(
                base,
                mixtures,
                rows,
                losses=H3Losses(config.gating, config.regularisation),
                train_experts=config.train_experts,
                learning_rate=config.learning_rate,
                epochs=config.epochs,
                batch_size=recipe.experts.optimizer.batch_size,
                max_length=recipe.experts.max_length,
                seed=recipe.seed,
            )
            save_mixtures(mixtures, folder)
            _note(record, folder)

    inputs = {
        "experts": keys,
        "config": config.model_dump(mode="json"),
        "from_layer": from_layer,
        "rows": rows,
        "batch_size": recipe.experts.optimizer.batch_size,
        "max_length": recipe.experts.max_length,
        "seed": recipe.seed,
        "training": ROUTER_TRAINING,
    }
    fused = contest.store.stage(f"h3fusion/fused/{folder_name(system.name)}", inputs, fit)

    def answer(folder: Path) -> None:
        with _taken(contest):
            mixtures = on_h3fusion(base, folders, top_k=config.top_k, from_layer=from_layer, seed=recipe.seed)
            load_mixtures(mixtures, fused.folder)
            n_active = sum(p.numel() for mixture in mixtures.values() for p in mixture.parameters())
            model = H3FusionMixture(base, mixtures, tuple(experts))
            contest.examiner.examine(system.name, model, folder, n_active)

    answered = contest.examiner.stage(system.name, {"fused": fused.key}, answer)
    return answered, collapse_warnings(system.name, fused)


@contextmanager
def _taken(contest: Contest) -> Iterator[None]:
    """Return a context in which anything may be put on the base model; afterwards it is what it was."""
    with contest.bare() as base, given_back(base.model):
        yield


def _note(record: MixtureTraining, folder: Path) -> None:
    (folder / "training.json").write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def _trained(stage: Stage) -> int:
    return int(read_json(stage.folder / "training.json")["n_parameters"])


def _adapters(contest: Contest) -> int:
    return sum(_trained(stage) for stage in contest.experts.values())
