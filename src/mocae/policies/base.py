"""What a policy is: prompts in, one weight an expert out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.calibration import OutputCalibrators
from mocae.errors import ConfigError, unknown_name
from mocae.experts import Pool
from mocae.models import Sureness

__all__ = [
    "Policy",
    "PromptBatch",
    "Reading",
    "Sureness",
    "named_weights",
    "shape_weights",
    "weights_vector",
]

_ROUNDING = 1e-5
"""How far the sum of weights may be from 1 by the rounding of their number format."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Where in the base model a policy reads the prompt: the input of decoder layer `layer`, pooled.

    Attributes:
        layer: 0 is the embeddings.
        pool: "mean", "last" or "mean+last".

    Raises:
        ConfigError: another way of pooling.
    """

    layer: int
    pool: str

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ConfigError(unknown_name("pool", self.pool, get_args(Pool)))


@dataclass(frozen=True, slots=True, eq=False)
class PromptBatch:
    """Prompts to route.

    Attributes:
        ids: their identities (`mocae.types.prompt_id`), "" where the caller gave none.
        pooled: their pooled hidden states in fp32 on the CPU, None if the policy reads none.
    """

    ids: Sequence[str]
    pooled: Float[Tensor, "B P"] | None = None


class Policy(ABC):
    """Maps a batch of prompts to weights of the experts; a subclass gives `route` and sets what differs from here.

    Attributes:
        reads: which hidden states `route` needs, None for none.
        calibrated: whether a weight is meant as the probability that its expert's answer is acceptable, so that a
            calibration error makes sense.
        output: residuals behind the mixed layers, None for none.
    """

    reads: Reading | None = None
    calibrated: bool = False
    output: OutputCalibrators | None = None

    @abstractmethod
    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return one weight an expert for each prompt; rows need not sum to 1."""

    def route_steered(self, batch: PromptBatch, factor: Float[Tensor, " K"]) -> Float[Tensor, "B K"]:
        """Return the weights steered by `factor`; a policy that prunes does so after it, not before."""
        return shape_weights(self.route(batch), steer=factor)

    def sureness(self, batch: PromptBatch) -> Sureness | None:
        """Return how sure the router is of each prompt; None for a policy that does not say."""
        return None


def weights_vector(weights: Mapping[str, float], experts: Sequence[str]) -> Float[Tensor, " K"]:
    """Return weights given by name as a vector, 0 where none is given.

    Raises:
        ConfigError: a name that is no expert, or a weight that is not finite.
    """
    for name, value in weights.items():
        if name not in experts:
            raise ConfigError(unknown_name("expert", name, experts))
        if not math.isfinite(value):
            raise ConfigError(f"the number for expert {name!r} is {value}; it must be finite")
    return torch.tensor([float(weights.get(name, 0.0)) for name in experts])


def named_weights(experts: Sequence[str], alpha: Float[Tensor, " K"]) -> dict[str, float]:
    """Return weights by the names of their experts, as they are told.

    Weights that sum to 1 but for the rounding of their number format are told with that sum.

    >>> named_weights(["helpfulness", "honesty"], torch.tensor([1.0000001, 0.0]))
    {'helpfulness': 1.0, 'honesty': 0.0}
    """
    values = alpha.double()
    if abs(float(values.sum()) - 1) < _ROUNDING:
        values = values / values.sum()
    return dict(zip(experts, values.tolist(), strict=True))


def shape_weights(
    alpha: Float[Tensor, "B K"],
    *,
    steer: Float[Tensor, " K"] | None = None,
    top_k: int | None = None,
    threshold: float = 0.0,
) -> Float[Tensor, "B K"]:
    """Return weights after steering, then pruning; a row without negative weights keeps its sum through both.

    Rows with a negative weight are not scaled: their sum says nothing about their size.

    Args:
        alpha: routing weights.
        steer: factor an expert, at least 0, applied before normalising (so steering one axis up takes from the others).
            A row whose weights all become 0 stays 0: the base model.
        top_k: keep the k largest by magnitude, at least 1; of equal ones the first.
        threshold: drop weights smaller than this in magnitude, but never the largest of a row.
    """
    shaped = alpha
    if steer is not None:
        shaped = _with_sum_of(alpha, alpha * steer)
    if top_k is not None or threshold > 0:
        size = shaped.abs()
        order = size.argsort(dim=1, descending=True, stable=True)
        never, always = torch.zeros_like(size, dtype=torch.bool), torch.ones_like(order, dtype=torch.bool)
        keep = (size >= threshold).scatter(1, order[:, :1], always)
        keep &= never.scatter(1, order[:, :top_k], always)
        shaped = _with_sum_of(shaped, shaped * keep)
    return shaped


def _with_sum_of(before: Tensor, after: Tensor) -> Tensor:
    """Scale each row of `after` to the sum of its row of `before`, where neither is 0 nor holds a negative weight."""
    total, wanted = after.sum(1, keepdim=True), before.sum(1, keepdim=True)
    scalable = (before >= 0).all(1, keepdim=True) & (total > 0)
    return torch.where(scalable, after * (wanted / total.where(scalable, torch.ones_like(total))), after)
