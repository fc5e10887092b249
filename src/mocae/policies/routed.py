"""Policies that read the prompt: the label-trained router and AlignX."""

from functools import cached_property
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, PositiveInt
from torch import Tensor

from mocae.calibration import AlignXRouter, OutputCalibrators
from mocae.errors import ConfigError
from mocae.files import Record
from mocae.policies.base import Policy, PromptBatch, Reading, Sureness
from mocae.policies.steering import UNSTEERED, SteeringVectors, shape_weights

__all__ = ["RoutedPolicy", "RouterOptions"]


class RouterOptions(Record):
    """What a router is used with, as records of finished folders hold it; see `RoutedPolicy`."""

    model_config = ConfigDict(extra="forbid")

    top_k: PositiveInt | None = None
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RoutedPolicy(Policy):
    """Weights from a fitted router.

    Args:
        router: fitted.
        top_k: most experts a prompt uses, None: all.
        threshold: weight under which an expert is skipped, in [0, 1).
        output: residuals behind the mixed layers.
        calibrated: whether weights are meant as probabilities of an acceptable answer.

    Raises:
        ConfigError: `top_k` or `threshold` out of range.
    """

    has_logits = True

    def __init__(
        self,
        router: AlignXRouter,
        *,
        top_k: int | None = None,
        threshold: float = 0.0,
        output: OutputCalibrators | None = None,
        calibrated: bool = True,
    ) -> None:
        if top_k is not None and top_k < 1:
            raise ConfigError(f"top_k is {top_k}; give at least 1, or null for all experts")
        if not 0 <= threshold < 1:
            raise ConfigError(f"threshold is {threshold}; give a number from 0 up to, not including, 1")
        self.router = router
        self.top_k = top_k
        self.threshold = threshold
        self.output = output
        self.reads = Reading(router.layer, router.pool)
        self.calibrated = calibrated

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the router's weights, pruned by `top_k` and `threshold`.

        Raises:
            ConfigError: the batch has no hidden states.
            ModelMismatchError: it has those of another model.
        """
        return self.route_steered(batch, UNSTEERED)

    def route_steered(self, batch: PromptBatch, steering: SteeringVectors) -> Float[Tensor, "B K"]:
        """Return the steered weights; raises as `route` does."""
        lift = None if steering.prefer is None else steering.prefer * self._spread
        alpha = self.router.probs(_pooled(batch), lift=lift)
        if steering.at_most is not None:  # a router gives something to every expert, however little
            alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny)
        return shape_weights(alpha, steering, top_k=self.top_k, threshold=self.threshold)

    @cached_property
    def _spread(self) -> float:
        return self.router.spread()

    def sureness(self, batch: PromptBatch) -> Sureness:
        """Return how sure the router is of its first choice, which `top_k` and `threshold` keep; raises as `route`."""
        beliefs = self.router.beliefs(_pooled(batch))
        return Sureness(beliefs.confidence, beliefs.novelty)


def _pooled(batch: PromptBatch) -> Float[Tensor, "B P"]:
    if batch.pooled is None:
        raise ConfigError("this policy reads hidden states of the prompt and was given none")
    return batch.pooled
