"""TrinityX (arXiv 2509.08486): experts in the feed-forward blocks, a gate in each of them that weighs every token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn

from mocae.bank import ExpertBank, load_peft
from mocae.config import Recipe
from mocae.config.base import Config, FilePath, Sequence
from mocae.errors import ConfigError
from mocae.files import digest
from mocae.merging import TaskVector, importance
from mocae.models import Generator, decoder_layers, feed_forward
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage, folder_name
from mocae.stages.training_plan import TrainingPlan, mixture_plan
from mocae.systems.base import System, task_vectors
from mocae.systems.gates import GateOptions, collapse_warnings, gate_inputs, gate_rows, gate_settings
from mocae.systems.routers import refuse_large_top_k
from mocae.trinityx import LossWeights, TrinityXMixture, TrinityXRouter, feed_forward_blocks, train_router

__all__ = ["TrinityX"]

_Reference = TaskVector | Literal["others", "mean"]


class TrinityXOptions(GateOptions):
    """Options of a `trinityx` system; the defaults are the papers' where they say."""

    target_modules: Literal["feed-forward"] | Annotated[tuple[str, ...], Sequence] = "feed-forward"
    """Adapted modules; feed-forward: the linears of the block behind attention."""
    tau: PositiveFloat = 0.7
    """Softmax temperature of the gates. TrinityX: 0.7."""
    top_k: PositiveInt | None = None
    """Experts a token uses; null: all. All learn from every token."""
    norm: bool = False
    """LayerNorm and residual after fusion."""
    importance: Literal["uniform", "others", "mean", "joint", "adapter"] = "others"
    """gamma: all alike, or the inner product with T_ref: the mean of the other task vectors, of all, the task vector of
    joint training, or that of `importance_adapter`."""
    importance_adapter: FilePath | None = None
    """PEFT folder whose task vector is T_ref."""
    importance_normalise: Literal["softmax", "sum", "cosine"] = "softmax"
    """How inner products become gamma, see `mocae.merging.importance`."""
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


class TrinityX(System):
    """TrinityX: experts of its own in the feed-forward blocks, importance from their task vectors, trained gates."""

    Options = TrinityXOptions
    weights_mean = "shares"

    def check(self) -> None:
        """Refuse a top_k beyond the number of experts, and a folder without its setting or one that is not there."""
        super().check()
        refuse_large_top_k(self.options.top_k, self.axes)
        folder = self.options.importance_adapter
        if (self.options.importance == "adapter") != (folder is not None):
            raise ConfigError(
                f"options.importance_adapter: got {folder} with importance {self.options.importance!r}; "
                "give a PEFT folder with 'adapter', and none with the others"
            )

    def settled(self, recipe: Recipe) -> Config:
        """Return the options, whose adapter has to be there where it is trained with."""
        folder = self.options.importance_adapter
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if folder is not None and not (folder / name).is_file():
                key = f"systems.{self.name}.options.importance_adapter"
                raise ConfigError(f"{key}: no file '{folder / name}'; give the folder of a PEFT LoRA")
        return super().settled(recipe)

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return its experts, as "expert:<axis>", and the gates, "router"."""
        own = self.options.target_modules
        targets = _feed_forward(run) if own == "feed-forward" else tuple(own)
        # Experts with other targets lie elsewhere, so that two such systems do not replace each other's.
        folder = "experts" if own == "feed-forward" else "experts-" + folder_name("-".join(targets))
        with run.bare():
            experts = {
                axis: run.trainer.expert(axis, rows, targets=targets, folder=f"trinityx/{folder}")
                for axis, rows in run.rows.train.items()
            }
            joint = [run.trainer.joint(run.rows.all_of("train"))] if self.options.importance == "joint" else []
        reference, reference_file = self._reference(joint)
        inputs = {**gate_inputs(run, self.options), "reference": reference_file}

        def fit(folder: Path) -> None:
            with run.bare() as base:
                bank = ExpertBank.attach(base.model, {axis: stage.folder for axis, stage in experts.items()})
                try:
                    self._fit(run, bank, task_vectors({a: s.folder for a, s in experts.items()}), reference, folder)
                finally:
                    bank.detach()

        needs = (*experts.values(), *joint)
        router = run.store.stage(f"trinityx/router/{self.folder}", inputs, fit, needs=needs)
        return {**{f"expert:{axis}": stage for axis, stage in experts.items()}, "router": router}

    def load(self, made: Made) -> Generator:
        """Return the mixture."""
        bank = made.bank()
        return TrinityXMixture(made.base, bank, TrinityXRouter.load(made.folders["router"]), on_release=bank.detach)

    def n_active(self, made: Made) -> int:
        """Return the parameters of the experts; the gates are not counted."""
        return sum(int(made.record(f"expert:{axis}")["n_parameters"]) for axis in self.axes)

    def warnings(self, made: Made) -> list[str]:
        """Say where routing collapsed."""
        return collapse_warnings(self.name, made.record("router"))

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of experts in the feed-forward blocks, then of the gates over one pass."""
        k = len(self.axes)
        experts = k * base.lora_parameters(recipe.experts.r, blocks=True)
        gates = (base.n_layers - base.from_layer) * k * (base.hidden_size + 1)
        return mixture_plan(recipe, base, self.kind, n_rows, experts=experts, gates=gates)

    def _reference(self, joint: list[Stage]) -> tuple[_Reference, str | None]:
        """Return T_ref, and what identifies it where neither options nor stages do."""
        match self.options.importance:
            case "joint":
                return TaskVector.from_lora(load_peft(joint[0].folder, name="joint")), None
            case "adapter":
                folder = self.options.importance_adapter
                weights = load_peft(folder, name="importance_adapter")
                return TaskVector.from_lora(weights), digest(folder / "adapter_model.safetensors", links=True)
            case "mean":
                return "mean", None
            case _:
                return "others", None

    def _fit(
        self, run: Run, bank: ExpertBank, vectors: Mapping[str, TaskVector], reference: _Reference, folder: Path
    ) -> None:
        options = self.options
        router = TrinityXRouter(
            bank.names,
            layers=tuple(feed_forward_blocks(bank)),
            hidden_size=int(run.base.model.get_input_embeddings().weight.shape[1]),  # type: ignore[index]
            gamma=self._gamma(vectors, reference),
            tau=options.tau,
            top_k=options.top_k,
            norm=options.norm,
        )
        record = train_router(
            run.base,
            bank,
            router,
            gate_rows(run, options.max_rows),
            weights=LossWeights(options.gating, options.regularisation, options.entropy, options.kl),
            **gate_settings(run, options),
            expert_norms=torch.tensor([vectors[name].norm() for name in bank.names]),
        )
        router.save(folder)
        details: dict[str, Any] = {**asdict(record), "gamma": router.gamma.tolist()}
        (folder / "training.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")

    def _gamma(self, vectors: Mapping[str, TaskVector], reference: _Reference) -> torch.Tensor:
        if self.options.importance == "uniform":
            return torch.ones(len(vectors))
        scale = sum(vector.norm() ** 2 for vector in vectors.values()) / len(vectors)
        gamma = importance(
            vectors,
            reference=reference,
            normalise=self.options.importance_normalise,
            temperature=float(self.options.importance_temperature * scale),
        )
        return torch.tensor([gamma[name] for name in vectors])


def _feed_forward(run: Run) -> tuple[str, ...]:
    """Return the names of the linears behind attention."""
    block = feed_forward(decoder_layers(run.base.model)[-1])
    names = (name for name, module in block.named_modules() if isinstance(module, nn.Linear))
    return tuple(sorted({name.rpartition(".")[2] for name in names}))
