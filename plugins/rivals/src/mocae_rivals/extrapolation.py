"""LoX: go further along the leading directions of an alignment update, exact and low rank."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mocae.merging import TaskVector, combination, expert_weights, register_merge_method

__all__ = ["lox"]


@register_merge_method("lox", reference="arXiv:2506.15606")
def lox(
    vectors: Mapping[str, TaskVector],
    *,
    weights: Mapping[str, float] | None = None,
    k: Annotated[int, Field(ge=1)],
    coefficient: float,
) -> TaskVector:
    """Return dW + coefficient * U_k U_k^T dW, with dW the weighted sum of the experts.

    U_k holds the k leading left singular vectors of each linear's dW, from QR and SVD of its factors.

    Args:
        vectors: expert -> task vector; the paper has one, the safety alignment.
        weights: factor an expert, any sign; None = 1 each, an expert left out = 0.
        k: number of directions. A linear of rank k or less is extrapolated whole.
        coefficient: alpha of the paper, 1 in its code; 0 = dW itself.

    Raises:
        ConfigError: weights that do not fit.

    Reference: Perin et al., LoX: Low-Rank Extrapolation Robustifies LLM Safety Against Fine-tuning
        (arXiv 2506.15606): W_base + dW + alpha Proj_k(dW). Deviation: dW is what low-rank experts add, not
        the difference of two full models.
    """
    factors = expert_weights(vectors, weights)
    update = combination((vector, factors[name]) for name, vector in vectors.items())
    return combination([(update, 1.0), (update.truncate(k).vector, coefficient)])
