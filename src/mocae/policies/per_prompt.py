"""Policies put together: one steered, one of given weights in its place, and one for each prompt of a batch."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import ConfigError
from mocae.policies.base import Policy, PromptBatch, Reading, Sureness
from mocae.policies.fixed import FixedPolicy
from mocae.policies.steering import Steering, SteeringVectors, weights_vector

__all__ = ["PerPrompt", "Steered", "choose"]


def choose(policy: Policy, experts: Sequence[str], steering: Steering | None) -> Policy:
    """Return a policy as it is, steered, or one that gives the same weights to every prompt in its place.

    Args:
        policy: chooses where nothing else is said.
        experts: names, in the order of weights.
        steering: what is said; None: nothing.

    Raises:
        ConfigError: an unknown expert, or a preference for a policy without logits.
    """
    if steering is None:
        return policy
    if steering.weights is not None:
        return FixedPolicy(weights_vector(steering.weights, experts))
    vectors = steering.vectors(experts)
    if vectors.prefer is not None and not policy.has_logits:
        raise ConfigError(
            f"prefer: got {steering.prefer} for a system without a router's logits; ask for shares with at_least and "
            "at_most, or name a system with a router, such as 'alignx'"
        )
    return policy if all(vector is None for vector in vectors) else Steered(policy, vectors)


class Steered(Policy):
    """A policy under steering; how sure the policy is says nothing of the steered choice, so this one does not say.

    Args:
        policy: what is steered; with logits where `vectors.prefer` is given.
        vectors: what is said, see `Steering`.
    """

    def __init__(self, policy: Policy, vectors: SteeringVectors) -> None:
        self.policy = policy
        self.vectors = vectors
        self.reads = policy.reads
        self.output = policy.output

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the steered weights."""
        return self.policy.route_steered(batch, self.vectors)


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
