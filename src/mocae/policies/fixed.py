"""Policies that do not look at the prompt."""

from jaxtyping import Float
from torch import Tensor

from mocae.policies.base import Policy, PromptBatch

__all__ = ["FixedPolicy"]


class FixedPolicy(Policy):
    """Gives every prompt the same weights, shape (K,)."""

    def __init__(self, weights: Float[Tensor, " K"]) -> None:
        self.weights = weights

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the weights for each prompt."""
        return self.weights.expand(len(batch.ids), -1)
