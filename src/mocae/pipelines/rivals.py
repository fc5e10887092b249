"""Rivals made from the experts in other ways: merged into the weights, or routed inside every feed-forward block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mocae.bank import ExpertBank, load_peft
from mocae.config import SystemConfig, TrinityXConfig, rival_options
from mocae.files import digest, read_json
from mocae.merging import MERGE_METHODS, TaskVector, applied, importance, linear_peft_error
from mocae.models import PlainModel, decoder_layers, feed_forward
from mocae.pipelines.contest import Contest
from mocae.pipelines.store import Stage, folder_name
from mocae.pipelines.systems import Answered
from mocae.trinityx import LossWeights, TrinityXMixture, TrinityXRouter, feed_forward_blocks, train_router

__all__ = ["ROUTER_TRAINING", "collapse_warnings", "merged", "router_rows", "task_vectors", "trinityx"]

ROUTER_TRAINING = 2
"""Version of how routers of mixtures are trained and what is told of it: routers of another one are trained again."""


def merged(contest: Contest, system: SystemConfig) -> tuple[Answered, list[str]]:
    """Return the answers of the base model with the experts merged into its weights, `merge:<method>`, and warnings.

    Options are the method's own (`mocae.merging.MERGE_METHODS`), and `experts`: the axes to merge, in that order.

    Raises:
        PluginError: no such method.
        ConfigError: an option does not fit.
    """
    name = system.policy.partition(":")[2]
    options = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    chosen = options.pop("experts")
    method = MERGE_METHODS.get(name)
    vectors = task_vectors({axis: contest.experts[axis] for axis in chosen})

    def answer(folder: Path) -> None:
        with contest.bare() as base, applied(base.model, method(vectors, **options)):
            contest.examiner.examine(system.name, PlainModel(base), folder, 0)

    keys = {axis: key for axis, key in contest.expert_keys}
    inputs = {"merge": name, "options": options, "experts": [[axis, keys[axis]] for axis in chosen]}
    answered = contest.examiner.stage(system.name, inputs, answer)
    return answered, _merge_warnings(system.name, name, vectors, options)


def _merge_warnings(
    system: str, method: str, vectors: Mapping[str, TaskVector], options: Mapping[str, Any]
) -> list[str]:
    """Return what the report must say of a merge: how far one that is not exact is off, or nothing."""
    if method != "linear-peft":
        return []
    error = linear_peft_error(vectors, weights=options.get("weights"))
    return [
        f"{system}: PEFT's linear merge adds factors, not weights; its relative error against the exact sum is "
        f"{error:.2f} (Frobenius norm over all linears)"
    ]


def task_vectors(experts: Mapping[str, Stage]) -> dict[str, TaskVector]:
    """Return the task vector of each trained expert."""
    return {axis: TaskVector.from_lora(load_peft(stage.folder, name=axis)) for axis, stage in experts.items()}


def trinityx(contest: Contest, system: SystemConfig) -> tuple[Answered, list[str]]:
    """Return the answers of TrinityX, and warnings for the report.

    Experts of its own in the feed-forward blocks, importance from their task vectors, a gate in every block trained
    with the language-model loss and the terms in its options (`TrinityXConfig`).

    Raises:
        ConfigError: an option does not fit.
        TrainingError: the gates get no gradient from the language-model loss, or a loss is not finite.
    """
    config: TrinityXConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    base = contest.base
    targets = _feed_forward(contest) if config.target_modules == "feed-forward" else tuple(config.target_modules)
    name = folder_name(system.name)
    # Experts with other targets lie elsewhere, so that two such systems do not replace each other's.
    own = "experts" if config.target_modules == "feed-forward" else "experts-" + folder_name("-".join(targets))
    with contest.bare():
        experts = {
            axis: contest.trainer.expert(axis, rows, targets=targets, folder=f"trinityx/{own}")
            for axis, rows in contest.rows.train.items()
        }
    keys = [[axis, stage.key] for axis, stage in experts.items()]  # in the order of the weights

    reference, reference_key = _reference(contest, config)

    def fit(folder: Path) -> None:
        with contest.bare():
            bank = ExpertBank.attach(base.model, {axis: stage.folder for axis, stage in experts.items()})
            try:
                _fit_router(contest, config, bank, task_vectors(experts), reference, folder)
            finally:
                bank.detach()

    inputs = {
        "experts": keys,
        "config": config.model_dump(mode="json"),
        "reference": reference_key,
        "training": ROUTER_TRAINING,
    }
    router = contest.store.stage(f"trinityx/router/{name}", inputs, fit)

    def answer(folder: Path) -> None:
        with contest.bare():
            bank = ExpertBank.attach(base.model, {axis: stage.folder for axis, stage in experts.items()})
            try:
                model = TrinityXMixture(base, bank, TrinityXRouter.load(router.folder))
                contest.examiner.examine(system.name, model, folder, bank.n_parameters)
            finally:
                bank.detach()

    answered = contest.examiner.stage(system.name, {"router": router.key, "experts": keys}, answer)
    return answered, collapse_warnings(system.name, router)


def collapse_warnings(system: str, router: Stage) -> list[str]:
    """Return what the report must say of a trained router: that it collapsed, or nothing."""
    record = read_json(router.folder / "training.json")
    if not record["collapsed"]:
        return []
    return [
        f"{system}: routing collapsed (entropy of the mean weights {record['entropy']:.3f} of 1); it uses one "
        "expert for nearly everything"
    ]


def _feed_forward(contest: Contest) -> tuple[str, ...]:
    """Return the names of the linears behind attention."""
    block = feed_forward(decoder_layers(contest.base.model)[-1])
    names = (name for name, module in block.named_modules() if isinstance(module, nn.Linear))
    return tuple(sorted({name.rpartition(".")[2] for name in names}))


def _reference(contest: Contest, config: TrinityXConfig) -> tuple[TaskVector | Literal["others", "mean"], str | None]:
    """Return T_ref, and what identifies it where the options do not."""
    if config.importance == "joint":
        with contest.bare():
            stage = contest.trainer.joint(contest.rows.all_of("train"))
        return TaskVector.from_lora(load_peft(stage.folder, name="joint")), stage.key
    if config.importance == "adapter":
        assert config.importance_adapter is not None  # checked with the options
        weights = load_peft(config.importance_adapter, name="importance_adapter")
        key = digest(config.importance_adapter / "adapter_model.safetensors", links=True)
        return TaskVector.from_lora(weights), key
    return ("mean" if config.importance == "mean" else "others"), None


def _gamma(
    config: TrinityXConfig, vectors: Mapping[str, TaskVector], reference: TaskVector | Literal["others", "mean"]
) -> torch.Tensor:
    if config.importance == "uniform":
        return torch.ones(len(vectors))
    scale = sum(vector.norm() ** 2 for vector in vectors.values()) / len(vectors)
    found = importance(
        vectors,
        reference=reference,
        normalise=config.importance_normalise,
        temperature=float(config.importance_temperature * scale),
    )
    return torch.tensor([found[name] for name in vectors])


def router_rows(contest: Contest, max_rows: int | None) -> list[tuple[str, str, int]]:
    """Return what routers of mixtures are trained on: formatted prompt and response, and the index of the axis."""
    shape, tokenizer = contest.prompt_format, contest.base.tokenizer
    return [
        (
            shape.format_prompt(row.prompt, injection=None, tokenizer=tokenizer),
            shape.format_response(row.response or ""),
            i,
        )
        for i, axis in enumerate(contest.recipe.axis_names)
        for row in contest.rows.train[axis][:max_rows]
    ]


def _fit_router(
    contest: Contest,
    config: TrinityXConfig,
    bank: ExpertBank,
    vectors: Mapping[str, TaskVector],
    reference: TaskVector | Literal["others", "mean"],
    folder: Path,
) -> None:
    base = contest.base
    router = TrinityXRouter(
        bank.names,
        layers=tuple(feed_forward_blocks(bank)),
        hidden_size=int(base.model.get_input_embeddings().weight.shape[1]),  # type: ignore[index]
        gamma=_gamma(config, vectors, reference),
        tau=config.tau,
        top_k=config.top_k,
        norm=config.norm,
    )
    experts = contest.recipe.experts
    record = train_router(
        base,
        bank,
        router,
        router_rows(contest, config.max_rows),
        weights=LossWeights(config.gating, config.regularisation, config.entropy, config.kl),
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        batch_size=experts.optimizer.batch_size,
        max_length=experts.max_length,
        seed=contest.recipe.seed,
        expert_norms=torch.tensor([vectors[name].norm() for name in bank.names]),
    )
    router.save(folder)
    details: dict[str, Any] = {**asdict(record), "gamma": router.gamma.tolist()}
    (folder / "training.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
