"""Axis collapse in numbers: what later training made the model forget, and how far apart feature spaces lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mocae.errors import ConfigError, DataError
from mocae.metrics._checks import Array, Values, matrix

__all__ = [
    "ForgettingMatrix",
    "chance_cka",
    "chance_principal_angles",
    "forgetting_matrix",
    "linear_cka",
    "principal_angles",
]


@dataclass(frozen=True, slots=True, eq=False)
class ForgettingMatrix:
    """Rate on every axis after every training stage, and what was lost by the end.

    Attributes:
        stages: names of the rows, "base" first, in the order of training.
        axes: names of the columns.
        rates: shape (stages, axes), fractions of acceptable answers.
        forgetting: axis -> best rate before the last stage minus the rate after it. In [-1, 1], lower is better; a
            negative number is a gain over everything before.
    """

    stages: tuple[str, ...]
    axes: tuple[str, ...]
    rates: Array
    forgetting: Mapping[str, float]

    @property
    def mean_forgetting(self) -> float:
        """Mean of `forgetting` over the axes; lower is better."""
        return float(np.mean(list(self.forgetting.values())))


def forgetting_matrix(rates: Mapping[str, Mapping[str, float]]) -> ForgettingMatrix:
    """Return the rates after each training stage as a matrix, with the forgetting of each axis. Lower is better.

    Args:
        rates: stage -> axis -> rate, in the order of training, "base" (before any training) first. Rates are
            fractions and higher is better: pass shares of acceptable answers, not unsafe rates.

    Raises:
        DataError: the first stage is not "base", there is no stage after it, stages differ in their axes, or a rate
            is missing or outside [0, 1].

    Reference:
        Chaudhry et al., *Riemannian Walk for Incremental Learning*, arXiv:1801.10112, section 3.

    Deviation:
        Axes are compared from "base" on, and the axis trained last counts too: a base model can already be good at
        an axis, and lose it in the very first stage.

    >>> after = forgetting_matrix(
    ...     {"base": {"help": 0.5, "safe": 0.25}, "1": {"help": 1.0, "safe": 0.0}, "2": {"help": 0.25, "safe": 1.0}}
    ... )
    >>> dict(after.forgetting), after.mean_forgetting
    ({'help': 0.75, 'safe': -0.75}, 0.0)
    """
    stages = tuple(rates)
    if not stages or stages[0] != "base":
        raise DataError(f"stages are {list(stages)}; the first must be 'base', the model before any training")
    if len(stages) < 2:
        raise DataError("there is no stage after 'base'; forgetting needs at least one")
    axes = tuple(rates["base"])
    for stage in stages:
        if set(rates[stage]) != set(axes):
            raise DataError(
                f"stage {stage!r} has axes {sorted(rates[stage])}, 'base' has {sorted(axes)}; give all to each"
            )
        for axis, rate in rates[stage].items():
            if rate is None or not 0 <= rate <= 1:
                raise DataError(f"rate of stage {stage!r} on axis {axis!r} is {rate}; it must lie in [0, 1]")
    table = matrix([[rates[stage][axis] for axis in axes] for stage in stages], "rates")
    lost = table[:-1].max(axis=0) - table[-1]
    return ForgettingMatrix(stages, axes, table, {axis: float(x) for axis, x in zip(axes, lost, strict=True)})


def linear_cka(first: Values, second: Values) -> float:
    """Return the similarity of two representations of the same rows: 0 unrelated, 1 alike. Neither end is better.

    Columns are centred. Rotations and scalings of either space do not change it.

    Args:
        first: shape (N, F1), features of N inputs.
        second: shape (N, F2), other features of the same inputs.

    Raises:
        DataError: no rows, a missing value, numbers of rows that differ, or features that are the same in all rows.

    Reference:
        Kornblith et al., *Similarity of Neural Network Representations Revisited*, arXiv:1905.00414, section 3.

    >>> round(linear_cka([[1, 0], [0, 1], [1, 1]], [[2, 0], [0, 2], [2, 2]]), 4)
    1.0
    """
    x, y = _centred(first, "first"), _centred(second, "second")
    if x.shape[0] != y.shape[0]:
        raise DataError(f"first has {x.shape[0]} rows, second {y.shape[0]}; both must describe the same inputs")
    return float(_cross(x, y) / np.sqrt(_cross(x, x) * _cross(y, y)))


def chance_cka(first: Values, second: Values, *, n_shuffles: int = 20, seed: int = 0) -> float:
    """Return the mean linear CKA of the two when the rows of one are shuffled: what unrelated features score.

    With fewer rows than features linear CKA is far above 0 for features that have nothing to do with each other, so a
    value means something only next to this one.

    Args:
        first: shape (N, F1).
        second: shape (N, F2).
        n_shuffles: shuffles averaged over.
        seed: of the shuffles.

    Raises:
        DataError: see `linear_cka`.
        ConfigError: `n_shuffles` is under 1.
    """
    if n_shuffles < 1:
        raise ConfigError(f"n_shuffles is {n_shuffles}; at least 1 is needed")
    x, y = matrix(first, "first"), matrix(second, "second")
    rng = np.random.default_rng(seed)
    return float(np.mean([linear_cka(x, y[rng.permutation(len(y))]) for _ in range(n_shuffles)]))


def principal_angles(first: Values, second: Values, *, rank: int | None = None) -> Array:
    """Return the principal angles in radians, [0, pi/2], from the smallest, between two feature subspaces.

    A subspace is the span of a matrix's rows, or of its leading right singular vectors. 0: a shared direction;
    pi/2: disjoint directions. Neither end is better.

    Args:
        first: shape (N1, F), for example the task-feature matrix of one axis.
        second: shape (N2, F), of another axis; the numbers of rows may differ.
        rank: number of right singular vectors taken from each; None takes all above the numerical rank.

    Returns:
        Shape (m,), m the dimension of the smaller subspace.

    Raises:
        DataError: a missing value, numbers of features that differ, or a matrix of zeros.
        ConfigError: `rank` is under 1 or above the numerical rank of a matrix.

    Reference:
        Björck and Golub, *Numerical methods for computing angles between linear subspaces*, 1973.

    >>> np.degrees(principal_angles([[1, 0, 0]], [[1, 1, 0]])).round(4).tolist()
    [45.0]
    """
    a, b = matrix(first, "first"), matrix(second, "second")
    if a.shape[1] != b.shape[1]:
        raise DataError(f"first has {a.shape[1]} features, second {b.shape[1]}; both must lie in one space")
    large, small = _basis(a, "first", rank), _basis(b, "second", rank)
    if large.shape[1] < small.shape[1]:
        large, small = small, large
    inner = large.T @ small
    cosines = np.linalg.svd(inner, compute_uv=False)
    # the sine as well: the arc cosine alone loses half the digits of small angles
    sines = np.linalg.svd(small - large @ inner, compute_uv=False)[::-1]
    result: Array = np.arctan2(sines, cosines)
    return result


def chance_principal_angles(size: int, first: int, second: int, *, n_draws: int = 50, seed: int = 0) -> Array:
    """Return the mean principal angles in radians between random subspaces: what unrelated axes would show.

    Args:
        size: dimension of the space.
        first: dimension of one subspace.
        second: dimension of the other.
        n_draws: pairs of random subspaces averaged over.
        seed: of the draws.

    Returns:
        Shape (m,), m the smaller of the two dimensions.

    Raises:
        ConfigError: a dimension is under 1 or above `size`, or no draws.

    >>> np.degrees(chance_principal_angles(2, 2, 1)).round(6).tolist()
    [0.0]
    """
    if not 1 <= min(first, second) <= max(first, second) <= size or n_draws < 1:
        raise ConfigError(
            f"got subspaces of {first} and {second} dimensions in {size}, {n_draws} draws; all at least 1"
        )
    rng = np.random.default_rng(seed)
    drawn = [
        principal_angles(rng.standard_normal((first, size)), rng.standard_normal((second, size)))
        for _ in range(n_draws)
    ]
    mean: Array = np.mean(drawn, axis=0)
    return mean


def _centred(values: Values, name: str) -> Array:
    array = matrix(values, name)
    centred: Array = array - array.mean(axis=0)
    # relative: centring equal rows leaves rounding errors, not zeros
    if np.abs(centred).max() <= 1e-12 * max(np.abs(array).max(), 1e-300):
        raise DataError(f"{name} has the same features in all {array.shape[0]} rows; CKA needs features that vary")
    return centred


def _cross(x: Array, y: Array) -> float:
    """Return the squared Frobenius norm of x^T y, through whichever side is the smaller."""
    if x.shape[0] < max(x.shape[1], y.shape[1]):
        return float(np.sum((x @ x.T) * (y @ y.T)))
    return float(np.sum((x.T @ y) ** 2))


def _basis(array: Array, name: str, rank: int | None) -> Array:
    """Return an orthonormal basis, shape (F, rank), of the leading right singular vectors."""
    _, singular, vectors = np.linalg.svd(array, full_matrices=False)
    available = int(np.sum(singular > singular[0] * max(array.shape) * np.finfo(np.float64).eps))
    if available == 0:
        raise DataError(f"{name} holds only zeros; it spans no subspace")
    if rank is not None and not 1 <= rank <= available:
        raise ConfigError(f"rank is {rank}; {name} has numerical rank {available}, so 1 to {available} is accepted")
    result: Array = vectors[: available if rank is None else rank].T
    return result
