"""What a policy is: prompts in, one weight an expert out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from mocae.calibration import OutputCalibrators
from mocae.errors import ConfigError, unknown_name
from mocae.experts import Pool
from mocae.models import Sureness
from mocae.policies.steering import SteeringVectors, shape_weights

__all__ = [
    "Policy",
    "PromptBatch",
    "Reading",
    "Sureness",
    "named_weights",
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
        has_logits: whether it has logits that a preference can move.
    """

    reads: Reading | None = None
    calibrated: bool = False
    output: OutputCalibrators | None = None
    has_logits: bool = False

    @abstractmethod
    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return one weight an expert for each prompt; rows need not sum to 1."""

    def route_steered(self, batch: PromptBatch, steering: SteeringVectors) -> Float[Tensor, "B K"]:
        """Return the steered weights; a policy that prunes, or has logits, keeps to the order of `Steering`."""
        return shape_weights(self.route(batch), steering)

    def sureness(self, batch: PromptBatch) -> Sureness | None:
        """Return how sure the router is of each prompt; None for a policy that does not say."""
        return None


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
