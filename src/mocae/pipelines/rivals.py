"""Rivals made from the experts in other ways: merged into the weights, or routed inside every feed-forward block."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from mocae.bank import ExpertBank, load_peft
from mocae.config import SystemConfig, override_model
from mocae.config.base import Config
from mocae.errors import ConfigError
from mocae.merging import MERGE_METHODS, TaskVector, applied, importance
from mocae.models import decoder_layers
from mocae.pipelines.contest import Contest
from mocae.pipelines.store import Stage, folder_name
from mocae.pipelines.systems import Answered
from mocae.policies import PlainModel
from mocae.trinityx import LossWeights, TrinityXMixture, TrinityXRouter, feed_forward, feed_forward_blocks, train_router

__all__ = ["TrinityXConfig", "merged", "trinityx"]


def merged(contest: Contest, system: SystemConfig) -> Answered:
    """Return the answers of the base model with the experts merged into its weights: `merge:<method>`.

    Options are the method's own (`mocae.merging.MERGE_METHODS`).

    Raises:
        PluginError: no such method.
        ConfigError: an option does not fit, or the base model is sharded.
    """
    if contest.recipe.base.shard:
        raise ConfigError(
            f"systems.{system.name}: {system.policy!r} writes into the base model's weights, which base.shard cuts "
            "over the processes; leave this system out, or run without base.shard"
        )
    name = system.policy.partition(":")[2]
    method = MERGE_METHODS.get(name)
    vectors = _vectors(contest.experts)

    def answer(folder: Path) -> None:
        with contest.bare() as base, applied(base.model, method(vectors, **system.options)):
            contest.examiner.examine(system.name, PlainModel(base), folder, 0, keep_weights=False)

    inputs = {"merge": name, "options": dict(system.options), "experts": contest.expert_keys}
    return contest.examiner.stage(system.name, inputs, answer)


def _vectors(experts: Mapping[str, Stage]) -> dict[str, TaskVector]:
    return {axis: TaskVector.from_lora(load_peft(stage.folder, name=axis)) for axis, stage in experts.items()}


class TrinityXConfig(Config):
    """Options of a `trinityx` system; the defaults are the papers' where they say."""

    target_modules: Literal["feed-forward"] | list[str] = "feed-forward"
    """Adapted modules; feed-forward: the linears of the block behind attention."""
    tau: PositiveFloat = 0.7
    """Softmax temperature of the gates. TrinityX: 0.7."""
    top_k: PositiveInt | None = None
    """Experts a token uses; null: all."""
    norm: bool = False
    """LayerNorm and residual after fusion."""
    importance: Literal["uniform", "others", "mean"] = "others"
    """gamma: all alike, or the inner product with the mean of the other task vectors, or of all."""
    importance_temperature: PositiveFloat = 1.0
    """Softmax temperature of the inner products, in units of the mean squared norm of the task vectors."""
    gating: NonNegativeFloat = 0.01
    """Weight of the gating loss. H3Fusion: 0.01."""
    regularisation: NonNegativeFloat = 0.001
    """Weight of the regularisation loss. H3Fusion: 0.001."""
    entropy: NonNegativeFloat = 0.1
    """Weight of the entropy term. TrinityX's code: 0.1."""
    kl: NonNegativeFloat = 0.01
    """Weight of the KL term. TrinityX's code: 0.01."""
    learning_rate: PositiveFloat = 5e-3
    """Peak learning rate of the router."""
    epochs: PositiveInt = 1
    """Passes over the rows of all axes."""
    max_rows: Annotated[int, Field(gt=0)] | None = None
    """Most rows an axis gives to the router; null: all."""


def trinityx(contest: Contest, system: SystemConfig) -> tuple[Answered, list[str]]:
    """Return the answers of TrinityX, and warnings for the report.

    Experts of its own in the feed-forward blocks, importance from their task vectors, a gate in every block trained
    with the language-model loss and the terms in its options (`TrinityXConfig`).

    Raises:
        ConfigError: an option does not fit.
        TrainingError: the router received no gradient, or a loss is not finite.
    """
    config = override_model(TrinityXConfig(), dict(system.options), where=f"systems.{system.name}.options")
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

    def fit(folder: Path) -> None:
        with contest.bare():
            bank = ExpertBank.attach(base.model, {axis: stage.folder for axis, stage in experts.items()})
            try:
                _fit_router(contest, config, bank, _vectors(experts), folder)
            finally:
                bank.detach()

    router = contest.store.stage(f"trinityx/router/{name}", {"experts": keys, "config": config.model_dump()}, fit)

    def answer(folder: Path) -> None:
        with contest.bare():
            bank = ExpertBank.attach(base.model, {axis: stage.folder for axis, stage in experts.items()})
            try:
                model = TrinityXMixture(base, bank, TrinityXRouter.load(router.folder))
                contest.examiner.examine(system.name, model, folder, bank.n_parameters)
            finally:
                bank.detach()

    answered = contest.examiner.stage(system.name, {"router": router.key, "experts": keys}, answer)
    record = json.loads((router.folder / "training.json").read_text(encoding="utf-8"))
    warnings = []
    if record["collapsed"]:
        warnings.append(
            f"{system.name}: routing collapsed (entropy of the mean gate {record['entropy']:.3f} of 1); it uses one "
            "expert for nearly everything"
        )
    return answered, warnings


def _feed_forward(contest: Contest) -> tuple[str, ...]:
    """Return the names of the linears behind attention."""
    block = feed_forward(decoder_layers(contest.base.model)[-1])
    names = (name for name, module in block.named_modules() if isinstance(module, nn.Linear))
    return tuple(sorted({name.rpartition(".")[2] for name in names}))


def _gamma(config: TrinityXConfig, vectors: Mapping[str, TaskVector]) -> torch.Tensor:
    if config.importance == "uniform":
        return torch.ones(len(vectors))
    scale = sum(vector.norm() ** 2 for vector in vectors.values()) / len(vectors)
    found = importance(
        vectors,
        reference=config.importance,
        normalise="softmax",
        temperature=float(config.importance_temperature * scale),
    )
    return torch.tensor([found[name] for name in vectors])


def _fit_router(
    contest: Contest, config: TrinityXConfig, bank: ExpertBank, vectors: Mapping[str, TaskVector], folder: Path
) -> None:
    base = contest.base
    router = TrinityXRouter(
        bank.names,
        layers=tuple(feed_forward_blocks(bank)),
        hidden_size=int(base.model.get_input_embeddings().weight.shape[1]),  # type: ignore[index]
        gamma=_gamma(config, vectors),
        tau=config.tau,
        top_k=config.top_k,
        norm=config.norm,
    )
    shape = contest.prompt_format
    rows: list[tuple[str, str, int]] = []
    for i, axis in enumerate(bank.names):
        for row in contest.rows.train[axis][: config.max_rows]:
            prompt = shape.format_prompt(row.prompt, injection=None, tokenizer=base.tokenizer)
            rows.append((prompt, shape.format_response(row.response or ""), i))
    experts = contest.recipe.experts
    record = train_router(
        base,
        bank,
        router,
        rows,
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
