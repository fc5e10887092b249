"""The oracle: for each prompt an expert whose answer is known to be acceptable. An upper bound, not a method."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import ConfigError
from mocae.policies.base import Policy, PromptBatch

__all__ = ["OraclePolicy"]


class OraclePolicy(Policy):
    """Weight 1 for the first expert that answered this prompt acceptably; 1 / K each where none did."""

    def __init__(self, outcomes: Mapping[str, Sequence[bool]], n_experts: int) -> None:
        self.outcomes = outcomes
        self.n_experts = n_experts

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return the weights by verdict.

        Raises:
            ConfigError: a prompt whose experts' answers were not judged.
        """
        rows = torch.full((len(batch.ids), self.n_experts), 1 / self.n_experts)
        for row, prompt in zip(rows, batch.ids, strict=True):
            if prompt not in self.outcomes:
                raise ConfigError(
                    f"policy 'oracle': the experts' answers to prompt {prompt!r} were not judged; it knows only judged "
                    "prompts by their ids, so use another policy"
                )
            good = [i for i, acceptable in enumerate(self.outcomes[prompt]) if acceptable]
            if good:
                row.zero_()
                row[good[0]] = 1.0
        return rows
