"""Heterogeneous model averaging as a system: weights of layer blocks, fitted on training rows, merged into the base."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from mocae.config import HmaConfig, SystemConfig, rival_options
from mocae.experts import batch_of, encode_rows
from mocae.files import read_json
from mocae.merging import MERGE_METHODS, applied, block_weights_in_force, fit_block_weights, layer_blocks
from mocae.models import PlainModel, decoder_layers
from mocae.pipelines.contest import Contest
from mocae.pipelines.rivals import router_rows, task_vectors
from mocae.pipelines.store import folder_name
from mocae.pipelines.systems import Answered

__all__ = ["averaged"]


def averaged(contest: Contest, system: SystemConfig) -> Answered:
    """Return the answers of the base model with the experts averaged by the fitted weights of each block of layers.

    Blocks cut the layers that carry experts. The loss is that of the language model on rows of every axis, all of them
    in every step.

    Raises:
        ConfigError: an option does not fit, or there are more blocks than layers with experts.
        TrainingError: the loss is not finite.

    Reference: Lin et al. (arXiv 2309.06256). Deviation: they maximise a reward on the alignment data beside the loss of
        other tasks; here all axes are rows to be imitated alike.
    """
    config: HmaConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    base, axes = contest.base, contest.recipe.axis_names
    rows = router_rows(contest, config.max_rows)
    max_length = contest.recipe.experts.max_length

    def fit(folder: Path) -> None:
        _fit(config, contest, rows, folder)

    inputs = {
        "experts": contest.expert_keys,
        "config": config.model_dump(mode="json"),
        "rows": rows,
        "max_length": max_length,
    }
    fitted = contest.store.stage(f"hma/{folder_name(system.name)}", inputs, fit)

    def answer(folder: Path) -> None:
        told = read_json(fitted.folder / "weights.json")
        change = MERGE_METHODS.get("hma")(
            task_vectors({axis: contest.experts[axis] for axis in axes}),
            blocks=told["blocks"],
            boundaries=told["boundaries"],
        )
        with contest.bare(), applied(base.model, change):
            contest.examiner.examine(system.name, PlainModel(base), folder, 0)

    return contest.examiner.stage(system.name, {"weights": fitted.key, "experts": contest.expert_keys}, answer)


def _fit(config: HmaConfig, contest: Contest, rows: list[tuple[str, str, int]], folder: Path) -> None:
    base, bank = contest.base, contest.bank()
    first = bank.first_layer
    boundaries = [first + layer for layer in layer_blocks(len(decoder_layers(base.model)) - first, config.n_blocks)]
    encoded = encode_rows(base.tokenizer, rows, contest.recipe.experts.max_length, label="hma")
    batch, _ = batch_of(encoded, pad=base.tokenizer.pad_token_id, device=base.model.device)
    base.model.requires_grad_(False)
    base.model.eval()

    def loss(weights: Tensor) -> Tensor:
        with block_weights_in_force(bank, weights, boundaries=boundaries):
            return torch.as_tensor(base.model(**batch, use_cache=False).loss)

    n = len(bank.names)
    found = fit_block_weights(
        loss,
        mean=torch.full((n,), 1 / n if config.mean is None else config.mean, device=base.model.device),
        n_blocks=config.n_blocks,
        steps=config.steps,
        lr=config.learning_rate,
        epsilon=config.epsilon,
    )
    told = {
        "boundaries": boundaries,
        "blocks": [dict(zip(bank.names, row, strict=True)) for row in found.weights.tolist()],
        "losses": found.losses,
    }
    (folder / "weights.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
