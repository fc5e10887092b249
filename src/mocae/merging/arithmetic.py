"""Weighted sums of task vectors: task arithmetic and model averaging, both exact and low rank."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mocae.errors import ConfigError
from mocae.merging.base import expert_weights, register_merge_method
from mocae.merging.task_vector import TaskVector, combination

__all__ = ["average", "task_arithmetic"]


@register_merge_method("task-arithmetic", reference="arXiv:2212.04089")
def task_arithmetic(vectors: Mapping[str, TaskVector], *, weights: Mapping[str, float] | None = None) -> TaskVector:
    """Return the sum of weight * task vector, exact: ranks add up.

    Args:
        vectors: expert -> task vector.
        weights: factor an expert, any sign; None = 1 each, an expert left out = 0.

    Raises:
        ConfigError: weights that do not fit.

    Reference: Ilharco et al., Editing Models with Task Arithmetic (arXiv 2212.04089), section 2.
    """
    factors = expert_weights(vectors, weights)
    return combination((vector, factors[name]) for name, vector in vectors.items())


@register_merge_method("average", reference="arXiv:2203.05482")
def average(
    vectors: Mapping[str, TaskVector],
    *,
    weights: Mapping[str, float] | None = None,
    base_weight: Annotated[float, Field(ge=0)] = 0.0,
) -> TaskVector:
    """Return the weighted mean of the experts' models, and of the base model if it has a weight; exact.

    A linear that an expert leaves alone counts as that expert's copy of the base model.

    Args:
        vectors: expert -> task vector.
        weights: weight an expert, not negative; None = 1 each, an expert left out = 0.
        base_weight: weight of the base model, on the same scale.

    Raises:
        ConfigError: weights that do not fit, or a negative one.

    Reference: Wortsman et al., Model Soups (arXiv 2203.05482); with `base_weight` the interpolation of Lin et al.,
        Mitigating the Alignment Tax of RLHF (arXiv 2309.06256).
    """
    factors = expert_weights(vectors, weights)
    negative = {name: value for name, value in factors.items() if value < 0}
    if negative:
        raise ConfigError(f"weights {negative} are negative, which is no mean; use 'task-arithmetic' for that")
    total = sum(factors.values()) + base_weight
    return combination((vector, factors[name] / total) for name, vector in vectors.items())
