"""A toy world: prompts in one cluster an axis, experts that move hidden states in one direction each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mocae.calibration import CalibrationSet, FittedRouter, LatentSpace, RouterSettings, fit_latent_space, fit_router

AXES = ("helpful", "harmless", "honest")
WIDTH = 6
CENTRES = 2 * torch.eye(len(AXES), WIDTH)


@dataclass(frozen=True)
class Toy:
    """`draw(n, seed)` returns n prompts an axis with their labels; `latent` and `clouds` are of other prompts."""

    latent: LatentSpace
    clouds: list[Tensor]
    draw: Callable[[int, int], tuple[Tensor, Tensor]]

    def set_of(self, n: int, seed: int = 1, *, right: float = 1.0, wrong: float = 0.0) -> CalibrationSet:
        """Return n prompts an axis; the expert of their axis is acceptable with chance `right`, others with `wrong`."""
        pooled, labels = self.draw(n, seed)
        chance = torch.full((len(labels), len(AXES)), wrong)
        chance[torch.arange(len(labels)), labels] = right
        acceptable = torch.rand(chance.shape, generator=torch.Generator().manual_seed(seed)) < chance
        return CalibrationSet(pooled, acceptable, labels, [""] * len(labels))

    def fit(self, data: CalibrationSet, **settings: Any) -> FittedRouter:
        """Return the router fitted on `data`."""
        return fit_router(
            data,
            axes=AXES,
            latent=self.latent,
            clouds=self.clouds,
            settings=RouterSettings(**settings),
            layer=2,
            pool="mean",
        )


def drawn(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(AXES)).repeat_interleave(n)
    return CENTRES[labels] + torch.randn(len(labels), WIDTH, generator=generator), labels


def make_toy() -> Toy:
    """Return the toy world, the same each time."""
    states, labels = drawn(20, 0)
    generator = torch.Generator().manual_seed(9)
    moved = [0.1 * torch.randn(20, WIDTH, generator=generator) + torch.eye(WIDTH)[i + 3] for i in range(len(AXES))]
    latent = fit_latent_space(states, moved, k=5, subspace_rank=2)
    return Toy(latent, [latent.encode(states[labels == i]) for i in range(len(AXES))], drawn)
