"""Heterogeneous model averaging as a system: the experts merged with a fitted weight for each block of layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from mocae.bank import LoraWeights
from mocae.config.base import Config
from mocae.merging import Delta
from mocae.models import Generator, batch_of, decoder_layers, encode_rows
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems import System, task_vectors
from mocae.systems.gates import gate_rows
from mocae.systems.merge import on_merged
from mocae_rivals.layerwise import hma, layer_blocks
from mocae_rivals.layerwise_fit import block_weights_in_force, fit_block_weights

__all__ = ["Hma"]


class HmaOptions(Config):
    """Options of an `hma` system."""

    n_blocks: Annotated[int, Field(ge=2)] = 3
    """Blocks of the layers that carry experts, nearly equal; each has weights of its own. The paper: 3."""
    mean: PositiveFloat | None = None
    """Weight of every expert averaged over the blocks; null: 1 / number of experts."""
    steps: PositiveInt = 40
    """Evaluations of the loss on all rows."""
    learning_rate: PositiveFloat = 0.1
    """Of Adam on the logits of the weights."""
    epsilon: PositiveFloat = 0.2
    """How far blocks may drift apart; small = far. The paper's code: 0.2."""
    max_rows: PositiveInt = 24
    """Rows an axis gives."""


class Hma(System):
    """Heterogeneous model averaging: the experts with a weight for each block of layers, fitted on training rows.

    Blocks cut the layers that carry experts. The loss is that of the language model on rows of every axis, all of them
    in every step.

    Reference: Lin et al. (arXiv 2309.06256). Deviation: they maximise a reward on the alignment data beside the loss of
        other tasks; here all axes are rows to be imitated alike.
    """

    Options = HmaOptions
    whole_weights = True

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts and the fitted weights.

        Raises:
            ConfigError: there are more blocks than layers with experts.
            TrainingError: the loss is not finite.
        """
        experts = {f"expert:{axis}": stage for axis, stage in run.experts.items()}
        inputs = {
            "options": self.options.model_dump(mode="json"),
            "rows": gate_rows(run, self.options.max_rows),
            "max_length": run.recipe.experts.max_length,
        }
        weights = run.store.stage(
            f"hma/{self.folder}", inputs, lambda folder: self._fit(run, folder), needs=experts.values()
        )
        return {**experts, "weights": weights}

    def load(self, made: Made) -> Generator:
        """Return the base model with the experts in its weights."""
        return on_merged(made, self._change(made))

    def n_active(self, made: Made) -> int:
        """Return 0: what is merged adds nothing to the model."""
        return 0

    def export_names(self) -> tuple[str, ...] | None:
        """Return None: a change of the weights."""
        return None

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return the change of the weights."""
        return self._change(made)

    def _change(self, made: Made) -> Delta:
        vectors = task_vectors({axis: made.folders[f"expert:{axis}"] for axis in made.axes})
        record = made.record("weights", "weights.json")
        return hma(vectors, blocks=record["blocks"], boundaries=record["boundaries"])

    def _fit(self, run: Run, folder: Path) -> None:
        options, base, bank = self.options, run.base, run.bank()
        first = bank.first_layer
        layers = layer_blocks(len(decoder_layers(base.model)) - first, options.n_blocks)
        boundaries = [first + layer for layer in layers]
        rows = gate_rows(run, options.max_rows)
        encoded = encode_rows(base.tokenizer, rows, run.recipe.experts.max_length, label="hma")
        batch, _ = batch_of(encoded, pad=base.tokenizer.pad_token_id, device=base.model.device)
        base.model.requires_grad_(False)
        base.model.eval()

        def loss(weights: Tensor) -> Tensor:
            with block_weights_in_force(bank, weights, boundaries=boundaries):
                return torch.as_tensor(base.model(**batch, use_cache=False).loss)

        n = len(bank.names)
        fitted = fit_block_weights(
            loss,
            mean=torch.full((n,), 1 / n if options.mean is None else options.mean, device=base.model.device),
            n_blocks=options.n_blocks,
            steps=options.steps,
            lr=options.learning_rate,
            epsilon=options.epsilon,
        )
        record = {
            "boundaries": boundaries,
            "blocks": [dict(zip(bank.names, row, strict=True)) for row in fitted.weights.tolist()],
            "losses": fitted.losses,
        }
        (folder / "weights.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
