"""How much an expert matters: TrinityX's fixed importance weights, from inner products of task vectors."""

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch

from mocae.errors import ConfigError
from mocae.merging.task_vector import TaskVector, combination

__all__ = ["Normalisation", "Reference", "importance"]

Reference: TypeAlias = TaskVector | Literal["others", "mean"]
"""T_ref: the mean of the other experts, the mean of all, or a given vector (of joint training, of any adapter)."""

Normalisation: TypeAlias = Literal["none", "sum", "softmax", "cosine"]
"""How raw inner products become weights, see `importance`."""


def importance(
    vectors: Mapping[str, TaskVector],
    *,
    reference: Reference,
    normalise: Normalisation,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Return the importance gamma_i = <T_i, T_ref> of each expert, normalised, in the order of `vectors`.

    Args:
        vectors: expert -> its task vector T_i.
        reference: T_ref. "others" is another vector for each expert, the mean of all but itself.
        normalise: "none" = the inner products; "sum" = divided by their sum; "softmax" = softmax over experts of
            inner products / `temperature`, sums to 1; "cosine" = divided by both norms, in [-1, 1] each, so that
            neither rank nor length of training counts.
        temperature: of the softmax, above 0. Inner products grow with the square of the weights, so 1 is sharp for
            one model and flat for another.

    Raises:
        ConfigError: no vectors, one vector with reference "others", a temperature that is not above 0, inner products
            whose sum is not above 0 with "sum", or a vector that is 0 with "cosine".
        ModelMismatchError: vectors of different base models.

    Reference: TrinityX (arXiv 2509.08486), gamma_i. Deviation: the paper names neither T_ref nor the normalisation;
        both are settings here.
    """
    if not vectors:
        raise ConfigError("importance needs at least one task vector, received none")
    if temperature <= 0 or not math.isfinite(temperature):
        raise ConfigError(f"temperature {temperature} is not possible; give a number above 0")
    references = {name: _reference(name, vectors, reference) for name in vectors}
    if normalise == "cosine":
        return {name: vector.cosine(references[name]) for name, vector in vectors.items()}
    raw = {name: vector.inner(references[name]) for name, vector in vectors.items()}
    if normalise == "none":
        return raw
    if normalise == "sum":
        total = math.fsum(raw.values())
        if total <= 0:
            raise ConfigError(
                f"inner products {raw} sum to {total}, which is not above 0, so they cannot be divided by it; "
                "use normalise 'softmax' or 'cosine'"
            )
        return {name: value / total for name, value in raw.items()}
    shares = torch.softmax(torch.tensor(list(raw.values()), dtype=torch.float64) / temperature, dim=0)
    return dict(zip(raw, shares.tolist(), strict=True))


def _reference(name: str, vectors: Mapping[str, TaskVector], reference: Reference) -> TaskVector:
    if isinstance(reference, TaskVector):
        return reference
    chosen = [vector for other, vector in vectors.items() if reference == "mean" or other != name]
    if not chosen:
        raise ConfigError(
            f"reference 'others' needs at least two experts, received {name!r} alone; use 'mean' or give a task vector"
        )
    return combination((vector, 1 / len(chosen)) for vector in chosen)
