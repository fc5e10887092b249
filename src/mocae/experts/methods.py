"""How an adapter is trained: AdamW on gradients, or a method of another package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mocae.experts.trainer import TrainingRecord
from mocae.registry import Registry

__all__ = ["GIVEN_TO_TRAINERS", "TRAINERS", "TrainingMethod"]

TrainingMethod: TypeAlias = Callable[..., TrainingRecord]
"""Called like `finetune`, but without `work`: it writes an adapter into `folder` as PEFT does, and gives the base model
back. Its other keyword arguments are the options of a recipe, `experts.optimizer.options`."""

GIVEN_TO_TRAINERS = frozenset(
    {"base", "pairs", "folder", "lora", "optimisation", "seed", "label", "base_name", "start_from", "work"}
)
"""Arguments that are no options of a recipe."""

TRAINERS: Registry[TrainingMethod] = Registry(
    "training method",
    entry_point_group="mocae.trainers",
    builtin={"adamw": ("mocae.experts.finetune:finetune", "gradients, with AdamW")},
)
"""Training methods by the name a recipe gives as `experts.optimizer.method`."""
