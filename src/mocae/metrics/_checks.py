"""What every metric demands of its input, said once: the shape, no missing values, the range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mocae.errors import DataError

__all__ = ["Array", "Flags", "Values", "distributions", "flags", "fractions", "matrix", "same_length", "vector"]

Values: TypeAlias = Sequence[Any] | npt.NDArray[Any]
"""Numbers as a list, tuple or numpy array; the shape is in each docstring."""

Array: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


def vector(values: Values, name: str) -> Array:
    """Return `values` as a float64 vector of shape (N,), N at least 1.

    Raises:
        DataError: empty, not one-dimensional, not numbers, or holding None, NaN or an infinity.
    """
    return _numbers(values, name, n_dims=1)


def matrix(values: Values, name: str) -> Array:
    """Return `values` as a float64 matrix, both sides at least 1.

    Raises:
        DataError: as for `vector`, for two dimensions.
    """
    return _numbers(values, name, n_dims=2)


def fractions(values: Values, name: str, *, n_dims: int = 1) -> Array:
    """Return `values` as float64, all in [0, 1].

    Raises:
        DataError: as for `vector`, or a value outside [0, 1].
    """
    array = _numbers(values, name, n_dims=n_dims)
    _refuse(array, (array < 0) | (array > 1), name, "must lie in [0, 1]; percentages are divided by 100 first")
    return array


def flags(values: Values, name: str, *, n_dims: int = 1) -> Flags:
    """Return `values` (booleans or 0 / 1) as booleans.

    Raises:
        DataError: as for `vector`, or a value other than 0 and 1.
    """
    array = _numbers(values, name, n_dims=n_dims)
    _refuse(array, (array != 0) & (array != 1), name, "must be True / False or 0 / 1; put a threshold on scores first")
    on: Flags = array == 1
    return on


def distributions(values: Values, name: str) -> Array:
    """Return `values` of shape (N, K) as float64, each row a probability distribution.

    Raises:
        DataError: as for `fractions`, or a row whose sum is not 1 within 1e-4 (the error of half precision).
    """
    array = fractions(values, name, n_dims=2)
    sums = array.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-4)
    if wrong.size:
        raise DataError(f"{name}[{wrong[0]}] sums to {sums[wrong[0]]:g}; each row must sum to 1")
    return array


def same_length(**named: Values) -> None:
    """Refuse arguments that do not have one row for each other's row.

    Raises:
        DataError: two arguments differ in length.
    """
    lengths = {name: len(values) for name, values in named.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise DataError(f"rows do not match: {sizes}; give one entry a row to each")


def _numbers(values: Values, name: str, *, n_dims: int) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array of numbers with {n_dims} dimension(s): {error}") from error
    if array.size == 0:
        raise DataError(f"{name} is empty; at least one row is needed")
    if array.ndim != n_dims:
        raise DataError(f"{name} has shape {array.shape}; {n_dims} dimension(s) are needed")
    # numpy turns None into NaN, so one test finds both
    _refuse(array, ~np.isfinite(array), name, "is missing or not finite; remove unscored rows and report their number")
    return array


def _refuse(array: Array, wrong: Flags, name: str, rule: str) -> None:
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        place = ", ".join(map(str, where))
        raise DataError(f"{name}[{place}] = {array[where]:g} {rule} ({int(wrong.sum())} such of {array.size})")
