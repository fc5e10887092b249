"""TIES, DARE and both together: settings of one pipeline that sparsifies task vectors, elects signs and combines."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from mocae.errors import ConfigError
from mocae.merging import ComputedDelta, Delta, TaskVector, expert_weights, register_merge_method, shapes_of
from mocae_rivals.sparsify import (
    Combine,
    Election,
    agreement,
    combine_agreeing,
    drop_at_random,
    stream,
    trim_by_magnitude,
)

__all__ = ["dare", "dare_ties", "sparse_consensus", "ties"]

_Density: TypeAlias = Annotated[float, Field(gt=0, le=1)]
_Weights: TypeAlias = Mapping[str, float] | None


@register_merge_method("sparse-consensus", reference="arXiv:2306.01708, arXiv:2311.03099")
def sparse_consensus(
    vectors: Mapping[str, TaskVector],
    *,
    weights: _Weights = None,
    density: _Density = 1.0,
    sparsify: Literal["magnitude", "random"] | None = None,
    rescale: bool = False,
    elect: Election | None = None,
    combine: Combine = "sum",
    seed: int | None = None,
) -> ComputedDelta:
    """Return the change that the pipeline of TIES and DARE makes with any of its settings; dense, fp32.

    As it stands (no settings) it is task arithmetic.

    Args:
        vectors: expert -> task vector.
        weights: factor an expert, any sign; None = 1 each, an expert left out or of weight 0 = not there. Signs are
            elected from weight * vector, so a negated expert votes against its own direction.
        density: fraction of entries of each linear that `sparsify` keeps.
        sparsify: keep the largest entries, keep random ones, or all.
        rescale: divide randomly kept entries by `density`.
        elect: whose sign wins at each entry; None = all values count.
        combine: sum or mean of what is left; the mean is over agreeing experts, over all without election.
        seed: of the random entries. They depend on seed, expert and linear only, not on the order of work.

    Raises:
        ConfigError: weights that do not fit, or no seed for random entries.

    Reference: TIES-Merging (arXiv 2306.01708), DARE (arXiv 2311.03099); the common pipeline is mergekit's.
    """
    factors = {name: factor for name, factor in expert_weights(vectors, weights).items() if factor}
    if sparsify == "random" and seed is None:
        raise ConfigError("sparsify 'random' needs a seed, received None; give a whole number")

    def sparse(name: str, module: str) -> Tensor:
        change = vectors[name].dense(module)
        if sparsify == "magnitude":
            change = trim_by_magnitude(change, density)
        elif sparsify == "random":
            assert seed is not None
            change = drop_at_random(change, density, generator=stream(seed, name, module), rescale=rescale)
        return factors[name] * change

    def compute(module: str) -> Tensor:
        # An expert that leaves the linear alone is 0 there: it has no vote and adds nothing.
        stacked = torch.stack([sparse(name, module) for name in factors if module in vectors[name].layers])
        if elect is not None:
            return combine_agreeing(stacked, agreement(stacked, elect), combine)
        total = stacked.sum(0)
        return total / len(factors) if combine == "mean" else total

    return ComputedDelta(shapes_of({name: vectors[name] for name in factors}), compute)


@register_merge_method("ties", reference="arXiv:2306.01708")
def ties(
    vectors: Mapping[str, TaskVector], *, weights: _Weights = None, density: _Density, elect: Election = "total"
) -> Delta:
    """Return TIES: keep each vector's largest entries, elect a sign an entry, mean of the values that have it.

    Args:
        vectors: expert -> task vector.
        weights: see `sparse_consensus`; the same number for all is the paper's lambda.
        density: fraction of entries kept, 0.2 in the paper.
        elect: "total" in the paper.

    Raises:
        ConfigError: weights that do not fit.

    Reference: Yadav et al., TIES-Merging (arXiv 2306.01708), section 4 and algorithm 1. Deviation: trimmed linear by
        linear, as PEFT and mergekit do, where the paper trims the vector of the whole model; a draw elects plus.
    """
    return sparse_consensus(
        vectors, weights=weights, density=density, sparsify="magnitude", elect=elect, combine="mean"
    )


@register_merge_method("dare", reference="arXiv:2311.03099")
def dare(vectors: Mapping[str, TaskVector], *, weights: _Weights = None, density: _Density, seed: int) -> Delta:
    """Return DARE with task arithmetic: drop entries at random, rescale the others, add the vectors.

    Args:
        vectors: expert -> task vector.
        weights: see `sparse_consensus`.
        density: fraction of entries kept, 1 - p in the paper.
        seed: of the entries that are kept.

    Raises:
        ConfigError: weights that do not fit.

    Reference: Yu et al., Language Models are Super Mario (arXiv 2311.03099), "drop and rescale".
    """
    return sparse_consensus(vectors, weights=weights, density=density, sparsify="random", rescale=True, seed=seed)


@register_merge_method("dare-ties", reference="arXiv:2311.03099, arXiv:2306.01708")
def dare_ties(
    vectors: Mapping[str, TaskVector],
    *,
    weights: _Weights = None,
    density: _Density,
    seed: int,
    elect: Election = "total",
) -> Delta:
    """Return TIES with DARE in place of its trimming, as PEFT has it.

    Args:
        vectors: expert -> task vector.
        weights: see `sparse_consensus`.
        density: fraction of entries kept.
        seed: of the entries that are kept.
        elect: whose sign wins at each entry.

    Raises:
        ConfigError: weights that do not fit.

    Reference: DARE (arXiv 2311.03099), merging with DARE; TIES-Merging (arXiv 2306.01708), section 4.
    """
    return sparse_consensus(
        vectors,
        weights=weights,
        density=density,
        sparsify="random",
        rescale=True,
        elect=elect,
        combine="mean",
        seed=seed,
    )
