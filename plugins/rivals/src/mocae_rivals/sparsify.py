"""The steps TIES and DARE are made of: thin out one task tensor, elect signs, combine what agrees."""

import hashlib
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocae.errors import ConfigError

__all__ = ["Combine", "Election", "agreement", "combine_agreeing", "drop_at_random", "stream", "trim_by_magnitude"]

Matrix: TypeAlias = Float[Tensor, "out_features in_features"]
Stack: TypeAlias = Float[Tensor, "K out_features in_features"]
Votes: TypeAlias = Bool[Tensor, "K out_features in_features"]

Election: TypeAlias = Literal["total", "frequency"]
"""Whose sign wins at an entry: that of the sum of the values, or that most experts have."""

Combine: TypeAlias = Literal["sum", "mean"]
"""What is done with the agreeing values of an entry."""


def trim_by_magnitude(tensor: Matrix, density: float) -> Matrix:
    """Return the tensor with only its int(density * size) entries of largest magnitude, the others 0.

    Entries that tie with the smallest one kept are kept too.

    Raises:
        ConfigError: density is not in [0, 1].

    Reference: Yadav et al., TIES-Merging (arXiv 2306.01708), section 4, step 1.
    """
    _refuse_density(density)
    keep = int(density * tensor.numel())
    if keep == 0:
        return torch.zeros_like(tensor)
    size = tensor.abs()
    smallest = size.flatten().kthvalue(tensor.numel() - keep + 1).values
    return torch.where(size >= smallest, tensor, 0.0)


def drop_at_random(tensor: Matrix, density: float, *, generator: torch.Generator, rescale: bool) -> Matrix:
    """Return the tensor with each entry kept with probability `density`, the others 0.

    Args:
        tensor: values of one linear.
        density: 1 - p of the paper, in [0, 1].
        generator: on the CPU, so that the same seed drops the same entries on every device; it is advanced.
        rescale: divide what is kept by `density`, so that the expected value stays.

    Raises:
        ConfigError: density is not in [0, 1].

    Reference: Yu et al., DARE (arXiv 2311.03099), "drop and rescale".
    """
    _refuse_density(density)
    keep = torch.bernoulli(torch.full(tensor.shape, density), generator=generator).to(tensor.device)
    kept = tensor * keep
    return kept / density if rescale and density else kept


def agreement(stacked: Stack, election: Election) -> Votes:
    """Return which values have the elected sign of their entry; a 0 never has. A draw elects plus.

    Reference: TIES-Merging (arXiv 2306.01708), section 4, step 2.
    """
    signs = stacked.sign()
    votes = (stacked if election == "total" else signs).sum(0)
    return signs == torch.where(votes >= 0, 1.0, -1.0)


def combine_agreeing(
    stacked: Stack,
    agreeing: Votes,
    combine: Combine,
) -> Matrix:
    """Return the sum of the agreeing values of each entry, or their mean; 0 where none agrees.

    Reference: TIES-Merging (arXiv 2306.01708), section 4, step 3 ("disjoint mean").
    """
    total = torch.where(agreeing, stacked, 0.0).sum(0)
    return total / agreeing.sum(0).clamp(min=1) if combine == "mean" else total


def stream(seed: int, *names: str) -> torch.Generator:
    """Return a generator for one named use of a seed, so that results do not depend on the order of work."""
    text = "\0".join([str(seed), *names]).encode("utf-8")
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1  # torch takes 63 bits
    return torch.Generator().manual_seed(number)


def _refuse_density(density: float) -> None:
    if not 0 <= density <= 1:
        raise ConfigError(f"density {density} is not possible; give the fraction of entries to keep, in [0, 1]")
