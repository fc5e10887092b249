"""Bootstrap intervals: how far a number would move with another sample of the same kind of prompts.

Percentile intervals. Where rows share content (one fact in several phrasings) the *groups* are resampled, not the
rows: five phrasings of one question are not five independent questions. A group of "" (or None) stands alone, as in
`mocae.types.Example.group`.

One seed and one set of groups give every system the same resamples. An interval is left out (None) where there is
a single group, because nothing can be resampled. The bootstrap cannot see what never occurred: where all rows agree,
as in a rate of 0 or in the difference of two systems with the same verdicts, `widened` adds the exact binomial bound
on the number of groups.

Reference:
    Clopper and Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial*, 1934.
    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapters 13 (percentile) and 8 (groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mocae.errors import ConfigError, DataError
from mocae.metrics._checks import Array, Values, fractions, same_length, vector
from mocae.types import Estimate

__all__ = [
    "Table",
    "bootstrap_mean",
    "bootstrap_statistic",
    "bootstrap_tables",
    "estimate_rate",
    "paired_bootstrap_difference",
    "widened",
]

_CELLS_AT_ONCE = 4_000_000  # resamples x groups held in memory at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Table:
    """Rows that are resampled together: named columns of one length, and the group of each row."""

    columns: Mapping[str, Values]
    groups: Sequence[Hashable] | None = None


def bootstrap_mean(
    values: Values,
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return the mean of `values` with its bootstrap interval.

    Args:
        values: shape (N,), any finite numbers.
        groups: label of each row; whole groups are resampled. None: every row stands alone.
        n_resamples: number of bootstrap samples.
        seed: seed of a generator of its own; the global state of numpy is not touched.
        confidence: mass inside the interval.

    Raises:
        DataError: `values` is empty or holds None or NaN; `groups` has another length.
        ConfigError: `n_resamples` is under 1 or `confidence` not in (0, 1).

    >>> bootstrap_mean([1, 1, 1, 0, 1, 0, 1, 1])
    Estimate(value=0.75, low=0.5, high=1.0, n=8)
    """
    data = vector(values, "values")
    check_settings(n_resamples, confidence)
    codes = group_codes(groups, data.size)
    sums = np.bincount(codes, weights=data)
    sizes = np.bincount(codes)
    means = [
        (counts @ sums) / (counts @ sizes) for counts in _count_blocks(sums.size, n_resamples=n_resamples, seed=seed)
    ]
    low, high = _interval(np.concatenate(means), n_units=sums.size, confidence=confidence)
    return Estimate(value=float(data.mean()), low=low, high=high, n=data.size)


def estimate_rate(
    values: Values,
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return the mean of fractions with its interval, or `Estimate(value=None, n=0)` where there are no rows.

    For cells of a table that may have no rows, for example a category without test prompts. See `bootstrap_mean` and
    `widened`.

    Raises:
        DataError: a value is missing or outside [0, 1].
        ConfigError: see `bootstrap_mean`.

    >>> estimate_rate([True, False]).value, estimate_rate([])
    (0.5, Estimate(value=None, low=None, high=None, n=0))
    """
    if len(values) == 0:
        return Estimate(value=None, n=0)
    rates = fractions(values, "values")
    estimate = bootstrap_mean(rates, groups=groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
    return widened(estimate, [(1.0, rates, groups)], span=(0.0, 1.0), confidence=confidence)


def widened(
    estimate: Estimate,
    tables: Iterable[tuple[float, Values, Sequence[Hashable] | None]],
    *,
    span: tuple[float, float],
    confidence: float = 0.95,
) -> Estimate:
    """Return `estimate` with an interval that allows for rows unlike any in a table whose rows all agree.

    Of n groups that agree, at most 1 - ((1 - confidence) / 2)^(1/n) of all groups differ (the exact two-sided binomial
    bound), and those may hold any value of the span. Distances of several tables add as independent errors do.

    Args:
        estimate: a weighted sum of table means with its bootstrap interval.
        tables: (weight in the sum, values, group of each row) of every table.
        span: smallest and largest value that a row can have: (0, 1) for rates, (-1, 1) for their differences.
        confidence: mass inside the interval.

    >>> agreed = Estimate(0.0, 0.0, 0.0, n=24)
    >>> round(widened(agreed, [(1.0, [0] * 24, None)], span=(0.0, 1.0)).high, 3)
    0.142
    """
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    below, above = (estimate.value - estimate.low) ** 2, (estimate.high - estimate.value) ** 2
    for weight, values, groups in tables:
        value = values[0]
        if all(other == value for other in values):
            unlike = 1 - ((1 - confidence) / 2) ** (1 / (int(group_codes(groups, len(values)).max()) + 1))
            below += (weight * unlike * (value - span[0])) ** 2
            above += (weight * unlike * (span[1] - value)) ** 2
    return replace(estimate, low=estimate.value - math.sqrt(below), high=estimate.value + math.sqrt(above))


def paired_bootstrap_difference(
    first: Values,
    second: Values,
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return mean(first) - mean(second) over the same rows, with its interval.

    Row i of both is the same prompt, so what makes a prompt hard for both cancels. An interval that holds 0 means
    the difference may be chance. Rates that differ by the same in every row still have an interval: see `widened`.

    Raises:
        DataError: the lengths differ, or see `bootstrap_mean`.
        ConfigError: see `bootstrap_mean`.

    >>> paired_bootstrap_difference([1, 1, 1, 0], [1, 0, 0, 0]).value
    0.5
    """
    a, b = vector(first, "first"), vector(second, "second")
    same_length(first=a, second=b)
    estimate = bootstrap_mean(a - b, groups=groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
    if min(a.min(), b.min()) < 0 or max(a.max(), b.max()) > 1:
        return estimate  # no rates: nothing bounds a row that was not seen
    return widened(estimate, [(1.0, a - b, groups)], span=(-1.0, 1.0), confidence=confidence)


def bootstrap_statistic(
    statistic: Callable[..., float],
    columns: Mapping[str, Values],
    *,
    groups: Sequence[Hashable] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return `statistic(**columns)` with its interval; the rows of all columns are resampled together.

    For anything that is not one mean: a product of shares, an expected calibration error, an AUROC.

    Args:
        statistic: called with one float64 array a column, by name; must return a finite number.
        columns: name -> values, all of shape (N,).
        groups: see `bootstrap_mean`, as for the next three.
        n_resamples: number of bootstrap samples.
        seed: seed of the resampling.
        confidence: mass inside the interval.

    Raises:
        DataError: columns differ in length, hold None or NaN, or the statistic is not finite.
        ConfigError: see `bootstrap_mean`.

    >>> rows = {"truthful": [1, 1, 0, 1], "informative": [1, 0, 1, 1]}
    >>> bootstrap_statistic(lambda truthful, informative: truthful.mean() * informative.mean(), rows).value
    0.5625
    """
    table = Table(columns, groups)
    return bootstrap_tables(statistic, [table], n_resamples=n_resamples, seed=seed, confidence=confidence)


def bootstrap_tables(
    statistic: Callable[..., float],
    tables: Sequence[Table],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Estimate:
    """Return a statistic of several tables with its interval; each table is resampled on its own.

    For numbers made from different prompt sets, such as the average of win rate, truthfulness and harm. `n` is the
    number of rows of all tables.

    Args:
        statistic: called with one float64 array a column of any table, by name.
        tables: column names must differ across tables.
        n_resamples: number of bootstrap samples.
        seed: seed of the resampling.
        confidence: mass inside the interval.

    Raises:
        DataError: no table, a column name twice, or see `bootstrap_statistic`.
        ConfigError: see `bootstrap_mean`.

    >>> tables = [Table({"wins": [1, 0.5]}), Table({"unsafe": [0, 0, 1, 0]})]
    >>> bootstrap_tables(lambda wins, unsafe: wins.mean() - unsafe.mean(), tables).value
    0.5
    """
    check_settings(n_resamples, confidence)
    data = [_checked_columns(table) for table in tables]
    names = [name for columns in data for name in columns]
    if not names or len(set(names)) < len(names):
        raise DataError(f"columns are {names}; at least one is needed, and each name may occur once over all tables")
    lengths = [next(iter(columns.values())).size for columns in data]
    codes = [group_codes(table.groups, n) for table, n in zip(tables, lengths, strict=True)]
    n_units = [int(code.max()) + 1 for code in codes]
    draws = [
        (counts for block in _count_blocks(units, n_resamples=n_resamples, seed=seed, stream=i) for counts in block)
        for i, units in enumerate(n_units)
    ]
    replicates = np.empty(n_resamples)
    for r in range(n_resamples):
        resampled: dict[str, Array] = {}
        for columns, code, n, draw in zip(data, codes, lengths, draws, strict=True):
            rows = np.repeat(np.arange(n), next(draw)[code])
            resampled |= {name: column[rows] for name, column in columns.items()}
        replicates[r] = _finite(statistic(**resampled), f"resample {r}")
    value = _finite(statistic(**{name: column for columns in data for name, column in columns.items()}), "all rows")
    # one lone table with a single group would not vary while the others do, and the interval would be too narrow
    low, high = _interval(replicates, n_units=min(n_units), confidence=confidence)
    return Estimate(value=value, low=low, high=high, n=sum(lengths))


def _checked_columns(table: Table) -> dict[str, Array]:
    columns = {name: vector(values, name) for name, values in table.columns.items()}
    if not columns:
        raise DataError("a table has no columns; give at least one column of values")
    same_length(**columns)
    return columns


def check_settings(n_resamples: int, confidence: float) -> None:
    """Refuse settings that make no interval.

    Raises:
        ConfigError: `n_resamples` is under 1 or `confidence` not in (0, 1).
    """
    if n_resamples < 1:
        raise ConfigError(f"n_resamples is {n_resamples}; at least 1 is needed (1000 is usual)")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}; it must lie between 0 and 1, for example 0.95")


def group_codes(groups: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.intp]:
    """Return a group number for each row, counted from 0; rows of group "" or None get one of their own.

    Raises:
        DataError: `groups` has another length than `n`.
    """
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise DataError(f"groups has {len(groups)} entries for {n} rows; give one a row")
    seen: dict[Hashable, int] = {}
    keys = ((i, None) if group is None or group == "" else (-1, group) for i, group in enumerate(groups))
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.intp)


def _count_blocks(n_units: int, *, n_resamples: int, seed: int, stream: int = 0) -> Iterator[npt.NDArray[np.intp]]:
    """Yield blocks (resamples, units) of how often each unit was drawn; every row sums to the number of units."""
    rng = np.random.default_rng((seed, stream))
    step = max(1, _CELLS_AT_ONCE // n_units)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = rng.integers(n_units, size=(rows, n_units)) + n_units * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n_units).reshape(rows, n_units)


def _interval(replicates: Array, *, n_units: int, confidence: float) -> tuple[float | None, float | None]:
    if n_units < 2:
        return None, None
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _finite(value: float, where: str) -> float:
    if not np.isfinite(value):
        raise DataError(f"the statistic is {value} on {where}; it must be finite on every resample")
    return float(value)
