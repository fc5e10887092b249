"""Policies put together: one steered, one of given weights in its place, and one for each prompt of a batch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import ConfigError
from mocae.policies.base import Policy, PromptBatch, Reading, Sureness, weights_vector
from mocae.policies.fixed import FixedPolicy

__all__ = ["PerPrompt", "Steered", "choose"]


def choose(
    policy: Policy,
    experts: Sequence[str],
    *,
    steer: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Policy:
    """Return a policy as it is, steered, or one that gives the same weights to every prompt in its place.

    Args:
        policy: chooses where nothing else is given.
        experts: names, in the order of weights.
        steer: axis -> factor, multiplies the policy's weights before normalising.
        weights: expert -> weight, replaces the policy; negative allowed, 0 where none is given.

    Raises:
        ConfigError: an unknown expert, a number that is not finite, a negative factor, or steer and weights both.
    """
    if steer and weights is not None:
        raise ConfigError("steer multiplies what the policy chooses, weights replaces it: give one of them")
    if weights is not None:
        return FixedPolicy(weights_vector(weights, experts))
    if not steer:
        return policy
    factor = weights_vector({**dict.fromkeys(experts, 1.0), **steer}, experts)
    if (factor < 0).any():
        raise ConfigError(f"steer factors must be at least 0, got {dict(steer)}; use weights for negative ones")
    return Steered(policy, factor)


class Steered(Policy):
    """A policy whose weights are multiplied by one factor an expert, then scaled back to the sum they had.

    Args:
        policy: what is steered. How sure it is says nothing of the steered choice.
        factor: at least 0 for each expert.
    """

    def __init__(self, policy: Policy, factor: Float[Tensor, " K"]) -> None:
        self.policy = policy
        self.factor = factor
        self.reads = policy.reads
        self.output = policy.output

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the steered weights, see `mocae.policies.shape_weights`."""
        return self.policy.route_steered(batch, self.factor)


class PerPrompt(Policy):
    """Gives every prompt of one batch the weights of a policy of its own.

    Output calibrators of the policies are not its own: it leaves them to whoever knows the rows.

    Args:
        policies: one a prompt; those that read the prompt read it at the same place.

    Raises:
        ConfigError: no policies, or two that read at different places.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        if not policies:
            raise ConfigError("a policy for each prompt was asked for, and there are no prompts; give at least one")
        readings = {policy.reads for policy in policies if policy.reads is not None}
        if len(readings) > 1:
            raise ConfigError(
                f"policies of one batch read the prompt at different places ({', '.join(map(str, readings))}); "
                "answer their prompts in batches of their own"
            )
        self.policies = list(policies)
        self.reads: Reading | None = next(iter(readings), None)

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return each prompt's weights; prompts with the same policy are routed together.

        Raises:
            ConfigError: as many prompts as policies are needed.
        """
        return self._each(batch, lambda policy, part: policy.route(part))

    def sureness(self, batch: PromptBatch) -> Sureness:
        """Return how sure each prompt's policy is of it, nan where it does not say.

        Raises:
            ConfigError: see `route`.
        """

        def of(policy: Policy, part: PromptBatch) -> Tensor:
            sureness = policy.sureness(part)
            return torch.full((len(part.ids), 2), torch.nan) if sureness is None else torch.stack(sureness, dim=1)

        return Sureness(*self._each(batch, of).unbind(1))

    def _each(self, batch: PromptBatch, of: Callable[[Policy, PromptBatch], Tensor]) -> Tensor:
        """Return one row a prompt; `of` gets all prompts of a policy at once."""
        if len(batch.ids) != len(self.policies):
            raise ConfigError(f"{len(batch.ids)} prompts for {len(self.policies)} policies; give one policy a prompt")
        places: dict[int, list[int]] = {}
        for i, policy in enumerate(self.policies):
            places.setdefault(id(policy), []).append(i)
        rows: dict[int, Tensor] = {}
        for some in places.values():
            pooled = None if batch.pooled is None else batch.pooled[some]
            part = PromptBatch([batch.ids[i] for i in some], pooled)
            rows |= dict(zip(some, of(self.policies[some[0]], part), strict=True))
        return torch.stack([rows[i] for i in range(len(self.policies))])
