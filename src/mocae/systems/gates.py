"""What mixtures share whose gates are trained with the language-model loss on the rows of all axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from mocae.config.base import Config
from mocae.stages.run import Run

__all__ = ["GateOptions", "collapse_warnings", "gate_inputs", "gate_rows", "gate_settings"]

_TRAINING = 2
"""Version of how gates are trained and what is recorded of it: gates of another one are trained again."""


class GateOptions(Config):
    """How the gates of a mixture are trained."""

    learning_rate: PositiveFloat = 5e-3
    """Peak learning rate of AdamW."""
    epochs: PositiveInt = 1
    """Passes over the rows."""
    max_rows: PositiveInt | None = None
    """Most rows an axis gives; null: all."""


def gate_rows(run: Run, max_rows: int | None) -> list[tuple[str, str, int]]:
    """Return what gates are trained on: formatted prompt and response, and the index of the axis."""
    shape, tokenizer = run.prompt_format, run.base.tokenizer
    return [
        (
            shape.format_prompt(row.prompt, injection=None, tokenizer=tokenizer),
            shape.format_response(row.response or ""),
            i,
        )
        for i, axis in enumerate(run.recipe.axis_names)
        for row in run.rows.train[axis][:max_rows]
    ]


def gate_settings(run: Run, options: GateOptions) -> dict[str, Any]:
    """Return how gates are trained: learning_rate, epochs, batch_size, max_length and seed."""
    experts = run.recipe.experts
    return {
        "learning_rate": options.learning_rate,
        "epochs": options.epochs,
        "batch_size": experts.optimizer.batch_size,
        "max_length": experts.max_length,
        "seed": run.recipe.seed,
    }


def gate_inputs(run: Run, options: GateOptions) -> dict[str, Any]:
    """Return what trained gates depend on beside the stages they need."""
    return {
        "options": options.model_dump(mode="json"),
        "rows": gate_rows(run, options.max_rows),
        "settings": gate_settings(run, options),
        "training": _TRAINING,
    }


def collapse_warnings(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return what the report must say of trained gates, by their `training.json`: that they collapsed, or nothing."""
    if not record["collapsed"]:
        return []
    return [
        f"{name}: routing collapsed (entropy of the mean weights {record['entropy']:.3f} of 1); it uses one expert for "
        "nearly everything"
    ]
