"""H3Fusion (arXiv 2411.17792) as a system: a mixture of whole feed-forward blocks, each tuned for one axis."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat

from mocae.config import Recipe
from mocae.experts import given_back
from mocae.models import Generator
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.stages.training import first_expert_layer, note_training
from mocae.stages.training_plan import TrainingPlan, mixture_plan
from mocae.systems import System
from mocae.systems.gates import GateOptions, collapse_warnings, gate_inputs, gate_rows, gate_settings
from mocae.systems.routers import refuse_large_top_k
from mocae_rivals.feed_forward import load_modules, mix_feed_forward, save_modules
from mocae_rivals.h3fusion_training import H3FusionMixture, H3Losses, finetune_blocks, on_h3fusion, train_h3fusion

__all__ = ["H3Fusion"]

_FUSED = "h3fusion.safetensors"


class H3FusionOptions(GateOptions):
    """Options of an `h3fusion` system; the defaults are H3Fusion's where it says."""

    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate of gates and experts together. H3Fusion: 5e-4."""
    expert_learning_rate: PositiveFloat = 5e-4
    """Peak learning rate of each expert on its own axis. H3Fusion: 5e-4."""
    expert_epochs: PositiveFloat | None = None
    """Passes of each expert over its axis; null: as the recipe's experts."""
    top_k: Annotated[int, Field(ge=2)] = 2
    """Experts a token uses, 2 or more: one would have weight 1 whatever its gate says. H3Fusion: 2."""
    from_layer: Annotated[int, Field(ge=0)] | None = None
    """First decoder layer with a mixture; null: as the recipe's experts."""
    train_experts: bool = True
    """Train the blocks further behind the gates, as H3Fusion does; false: the gates alone."""
    gating: NonNegativeFloat = 0.01
    """Weight of the gating loss. H3Fusion: 0.01."""
    regularisation: NonNegativeFloat = 0.001
    """Weight of the regularisation loss. H3Fusion: 0.001."""


class H3Fusion(System):
    """H3Fusion: whole feed-forward blocks tuned an axis, two a token."""

    Options = H3FusionOptions
    whole_weights = True
    weights_mean = "shares"

    def check(self) -> None:
        """Refuse a top_k beyond the number of experts."""
        super().check()
        refuse_large_top_k(self.options.top_k, self.axes)

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the trained mixture, "fused"; blocks are tuned for each axis, then gates on the rows of all.

        Raises:
            TrainingError: the gates get no gradient from the language-model loss, or a loss is not finite.
        """
        options, recipe = self.options, run.recipe
        own = options.from_layer
        from_layer = first_expert_layer(recipe.experts, run.base) if own is None else own
        with run.bare():
            experts = [self._blocks(run, axis, from_layer) for axis in self.axes]

        def fit(folder: Path) -> None:
            with run.bare() as base, given_back(base.model):
                mixtures = on_h3fusion(
                    base,
                    [stage.folder for stage in experts],
                    top_k=options.top_k,
                    from_layer=from_layer,
                    seed=recipe.seed,
                )
                record = train_h3fusion(
                    base,
                    mixtures,
                    gate_rows(run, options.max_rows),
                    losses=H3Losses(options.gating, options.regularisation),
                    train_experts=options.train_experts,
                    **gate_settings(run, options),
                )
                save_modules(mixtures, folder / _FUSED)
            shape = {
                "from_layer": from_layer,
                "n_active": sum(p.numel() for m in mixtures.values() for p in m.parameters()),
            }
            details = json.dumps({**asdict(record), **shape}, indent=1)
            (folder / "training.json").write_text(details + "\n", encoding="utf-8")

        inputs = {**gate_inputs(run, options), "from_layer": from_layer}
        return {"fused": run.store.stage(f"h3fusion/fused/{self.folder}", inputs, fit, needs=experts)}

    def load(self, made: Made) -> Generator:
        """Return the base model with the mixtures in it."""
        with ExitStack() as stack:
            stack.enter_context(given_back(made.base.model))
            mixtures = mix_feed_forward(
                made.base.model,
                n_experts=len(made.axes),
                top_k=self.options.top_k,
                from_layer=made.record("fused")["from_layer"],
                dtype=torch.float32,
            )
            load_modules(mixtures, made.folders["fused"] / _FUSED)
            made.base.model.requires_grad_(False)
            return H3FusionMixture(made.base, mixtures, made.axes, on_release=stack.pop_all().close)

    def n_active(self, made: Made) -> int:
        """Return the parameters of all blocks and gates."""
        return int(made.record("fused")["n_active"])

    def warnings(self, made: Made) -> list[str]:
        """Say where routing collapsed."""
        return collapse_warnings(self.name, made.record("fused"))

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of the blocks, then of gates and blocks over one pass."""
        k = len(self.axes)
        experts, gates = k * base.n_blocks, (base.n_layers - base.from_layer) * k * base.hidden_size
        return mixture_plan(recipe, base, self.kind, n_rows, experts=experts, gates=gates, trained_with_gates=experts)

    def _blocks(self, run: Run, axis: str, from_layer: int) -> Stage:
        """Return whole feed-forward blocks tuned for one axis."""
        trainer, own = run.trainer, self.options
        optimisation = replace(trainer.optimisation(), learning_rate=own.expert_learning_rate)
        if own.expert_epochs is not None:
            optimisation = replace(optimisation, epochs=own.expert_epochs)
        pairs, name = trainer.pairs(run.rows.train[axis]), f"h3fusion/experts/{axis}"
        inputs = {
            "base": dict(run.base_key),
            "pairs": pairs,
            "from_layer": from_layer,
            "optimisation": asdict(optimisation),
            "seed": run.recipe.seed,
        }

        def make(folder: Path) -> None:
            record = finetune_blocks(
                run.base,
                pairs,
                folder,
                from_layer=from_layer,
                optimisation=optimisation,
                seed=run.recipe.seed,
                label=f"feed-forward blocks {axis}",
                work=trainer.work(name, inputs),
            )
            note_training(record, folder)

        return run.store.stage(name, inputs, make, axis=axis)
