"""Policies that do not look at the prompt."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import ConfigError, unknown_name
from mocae.policies.base import Parts, Policy, PromptBatch, weights_vector

__all__ = ["FixedPolicy", "base", "expert", "static", "total", "uniform"]


class FixedPolicy(Policy):
    """Gives every prompt the same weights, shape (K,)."""

    def __init__(self, weights: Float[Tensor, " K"]) -> None:
        self.weights = weights

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the weights for each prompt."""
        return self.weights.expand(len(batch.ids), -1)


def _plain(name: str, argument: str | None) -> None:
    if argument is not None:
        raise ConfigError(f"policy {name!r} takes nothing behind a colon, got {argument!r}")


def base(parts: Parts, argument: str | None) -> Policy:
    """Return the policy that uses no expert."""
    _plain("base", argument)
    return FixedPolicy(torch.zeros(len(parts.experts)))


def expert(parts: Parts, argument: str | None) -> Policy:
    """Return the policy that uses one expert alone."""
    if argument not in parts.experts:
        raise ConfigError(f"policy 'expert:<axis>': {unknown_name('axis', argument or '', parts.experts)}")
    return FixedPolicy(weights_vector({argument: 1.0}, parts.experts))


def uniform(parts: Parts, argument: str | None) -> Policy:
    """Return the policy that gives every expert 1 / K."""
    _plain("uniform", argument)
    return FixedPolicy(torch.full((len(parts.experts),), 1 / len(parts.experts)))


def total(parts: Parts, argument: str | None) -> Policy:
    """Return the policy that adds all task vectors, weight 1 each (task arithmetic, arXiv 2212.04089)."""
    _plain("sum", argument)
    return FixedPolicy(torch.ones(len(parts.experts)))


def static(parts: Parts, argument: str | None, *, weights: Mapping[str, float] | None = None) -> Policy:
    """Return the policy with weights given by name; negative ones are allowed.

    Raises:
        ConfigError: no weights, a name that is no expert, or a weight that is not finite.
    """
    _plain("static", argument)
    if not weights:
        raise ConfigError("policy 'static' needs options: {weights: {<expert>: <number>, ...}}")
    return FixedPolicy(weights_vector(weights, parts.experts))
