"""Policies put together: one steered, and one for each prompt of a batch."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.calibration import OutputCalibrators
from mocae.errors import ConfigError
from mocae.policies.base import FittedPolicy, Policy, PromptBatch, Reading, Sureness, output_of, route_steered

__all__ = ["PerPrompt", "Steered"]


class Steered:
    """A policy whose weights are multiplied by one factor an expert, then scaled back to the sum they had.

    Args:
        policy: what is steered.
        factor: at least 0 for each expert.

    Raises:
        ConfigError: a negative factor.
    """

    calibrated = False

    def __init__(self, policy: Policy, factor: Float[Tensor, " K"]) -> None:
        if (factor < 0).any():
            raise ConfigError(f"steer factors must be at least 0, got {factor.tolist()}; use weights for negative ones")
        self.policy = policy
        self.factor = factor
        self.reads: Reading | None = policy.reads
        self.output = output_of(policy)

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the steered weights, see `mocae.policies.shape_weights`."""
        return route_steered(self.policy, batch, self.factor)


class PerPrompt:
    """Gives every prompt of one batch the weights of a policy of its own.

    Output calibrators of the policies are not its own: it leaves them to whoever knows the rows.

    Args:
        policies: one a prompt; those that read the prompt read it at the same place.

    Raises:
        ConfigError: no policies, or two that read at different places.
    """

    calibrated = False
    per_token = False
    output: OutputCalibrators | None = None

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

        def one(policy: Policy, part: PromptBatch) -> Tensor:
            if isinstance(policy, FittedPolicy):
                return torch.stack(policy.sureness(part), dim=1)
            return torch.full((len(part.ids), 2), torch.nan)

        return Sureness(*self._each(batch, one).unbind(1))

    def _each(self, batch: PromptBatch, ask: Callable[[Policy, PromptBatch], Tensor]) -> Tensor:
        """Return one row a prompt; prompts with the same policy are asked for together."""
        if len(batch.ids) != len(self.policies):
            raise ConfigError(f"{len(batch.ids)} prompts for {len(self.policies)} policies; give one policy a prompt")
        rows: dict[int, list[int]] = {}
        for i, policy in enumerate(self.policies):
            rows.setdefault(id(policy), []).append(i)
        told: dict[int, Tensor] = {}
        for some in rows.values():
            pooled = None if batch.pooled is None else batch.pooled[some]
            part = PromptBatch([batch.ids[i] for i in some], pooled)
            told |= dict(zip(some, ask(self.policies[some[0]], part), strict=True))
        return torch.stack([told[i] for i in range(len(self.policies))])
