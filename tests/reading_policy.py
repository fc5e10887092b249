"""A policy that routes by hidden states without having been fitted."""

from __future__ import annotations

import torch
from torch import Tensor

from mocae.policies import Policy, PromptBatch, Reading


class ReadingPolicy(Policy):
    """Weights from a random linear map of the pooled hidden states; remembers what it read."""

    def __init__(self, layer: int, *, pool: str = "mean+last", experts: int = 3, width: int = 32) -> None:
        self.reads = Reading(layer, pool)
        size = 2 * width if pool == "mean+last" else width
        self.map = torch.randn(size, experts, generator=torch.Generator().manual_seed(1))
        self.read: list[Tensor] = []

    def route(self, batch: PromptBatch) -> Tensor:
        assert batch.pooled is not None
        self.read.append(batch.pooled)
        return (batch.pooled @ self.map).softmax(1)
