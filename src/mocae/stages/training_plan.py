"""What training an adapter or a mixture costs, counted before it is done; `mocae plan` says by which rules."""

from __future__ import annotations

from dataclasses import dataclass

from mocae.config import Recipe
from mocae.stages.base_size import BaseSize

__all__ = ["TrainingPlan", "adapter_plan", "mixture_plan"]


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """One thing to train; None where rows cannot be counted before the data is there. `n_kept`: copies on the disk."""

    name: str
    n_parameters: int
    n_rows: int | None
    n_tokens: int | None
    flops: int | None
    n_kept: int = 1


def adapter_plan(recipe: Recipe, base: BaseSize, name: str, n_rows: int | None, r: int) -> TrainingPlan:
    """Return the cost of one adapter of rank `r` on so many rows."""
    n_lora = base.lora_parameters(r)
    if n_rows is None:
        return TrainingPlan(name, n_lora, None, None, None)
    tokens = round(n_rows * recipe.experts.optimizer.epochs * recipe.experts.max_length)
    of_a_token = 2 * base.n_matmul + 2 * base.n_matmul_above + 6 * n_lora
    return TrainingPlan(name, n_lora, n_rows, tokens, of_a_token * tokens)


def mixture_plan(
    recipe: Recipe,
    base: BaseSize,
    name: str,
    n_rows: int | None,
    *,
    experts: int,
    gates: int,
    trained_with_gates: int | None = None,
    extra_passes: int = 0,
) -> TrainingPlan:
    """Return the cost of a mixture: experts of its own over the recipe's epochs, then its gates over one pass.

    Args:
        recipe: what is run.
        base: sizes of the base model.
        name: of the kind; several systems of one kind share their experts and count once.
        n_rows: of all axes.
        experts: parameters of all its own experts; 0: those of the run.
        gates: parameters of its gates.
        trained_with_gates: adapter parameters a gradient goes through while the gates learn; None: the run's experts.
        extra_passes: forward passes through the base model beside the one that is trained.
    """
    if n_rows is None:
        return TrainingPlan(name, experts + gates, None, None, None)
    k = len(recipe.axes)
    once = n_rows * recipe.experts.max_length
    first = round(once * recipe.experts.optimizer.epochs) if experts else 0
    back = 2 * base.n_matmul + 2 * base.n_matmul_above
    through = base.lora_parameters(recipe.experts.r) * k if trained_with_gates is None else trained_with_gates
    of_a_gate_token = back + 6 * through + 2 * base.n_matmul * extra_passes
    flops = first * (back + 6 * experts // k) + once * of_a_gate_token
    return TrainingPlan(name, experts + gates, n_rows, first + once, flops)
