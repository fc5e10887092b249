"""How far one merge is from another, in relative Frobenius norm."""

import math
from collections.abc import Mapping

import torch

from mocae.errors import ConfigError
from mocae.merging.arithmetic import task_arithmetic
from mocae.merging.base import Delta
from mocae.merging.peft_linear import linear_peft
from mocae.merging.task_vector import TaskVector

__all__ = ["linear_peft_error", "relative_error"]


def relative_error(approximation: Delta, exact: Delta) -> float:
    """Return ||approximation - exact|| / ||exact|| over all linears of both, 0 = equal, 1 = as bad as no merge.

    Two task vectors are compared by their factors; otherwise one linear's dense changes are in memory at a time.

    Raises:
        ConfigError: `exact` is 0.
        ModelMismatchError: they disagree on the shape of a linear.
    """
    if isinstance(approximation, TaskVector) and isinstance(exact, TaskVector):
        lost, total = (approximation - exact).norm(), exact.norm()
    else:
        lost, total = _dense_norms(approximation, exact)
    if not total:
        raise ConfigError("the exact merge is 0, which is the base model, so a relative error is not defined")
    return lost / total


def linear_peft_error(vectors: Mapping[str, TaskVector], *, weights: Mapping[str, float] | None = None) -> float:
    """Return the relative error of PEFT's `linear` merge of these experts against the exact sum.

    For K independent experts of equal size and weight the K (K - 1) cross terms that it adds are each as large as an
    expert, so the error is about sqrt(K - 1): 1.0 for two experts, 1.4 for three.

    Raises:
        ConfigError: experts of different ranks, weights that do not fit, or an exact sum of 0.
        ModelMismatchError: experts of different base models.
    """
    return relative_error(linear_peft(vectors, weights=weights), task_arithmetic(vectors, weights=weights))


def _dense_norms(approximation: Delta, exact: Delta) -> tuple[float, float]:
    lost, total = [], []
    for module in dict.fromkeys([*approximation.modules, *exact.modules]):
        parts = [d.dense(module) if module in d.modules else torch.zeros(()) for d in (approximation, exact)]
        lost.append(float((parts[0] - parts[1]).double().square().sum()))
        total.append(float(parts[1].double().square().sum()))
    return math.sqrt(math.fsum(lost)), math.sqrt(math.fsum(total))
