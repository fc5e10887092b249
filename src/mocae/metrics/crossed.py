"""Intervals over runs and prompts at once: would the number stand with other seeds and other prompts?

Rows are crossed: every prompt was asked in several runs (seeds). Prompts that share a group are drawn together, as in
`mocae.metrics.intervals`, and runs are drawn as well, independently of them. So the interval covers both: a
difference that one lucky seed made is not settled, however many prompts it was measured on.

Reference:
    Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 1(2), 2007.

Deviation:
    With few runs the bootstrap cannot know the spread over runs well: drawing from n runs sees (n - 1) / n of their
    variance, so with three seeds an interval is somewhat too narrow. The values of all runs are given beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mocae.errors import DataError
from mocae.metrics._checks import Array, Values, same_length, vector
from mocae.metrics.intervals import check_settings, group_codes
from mocae.types import Estimate

__all__ = ["CrossedTable", "crossed_bootstrap_mean"]


@dataclass(frozen=True, slots=True)
class CrossedTable:
    """Rows of one kind of prompt: a value, the run it is from, the group of its prompt, and the table's weight.

    Attributes:
        values: shape (N,).
        runs: N labels, such as seeds; the same label in two tables is the same run.
        groups: N labels; rows of one group are drawn together in all runs. Every row needs one.
        weight: of this table's mean in the result.
    """

    values: Values
    runs: Sequence[Hashable]
    groups: Sequence[Hashable]
    weight: float = 1.0


def crossed_bootstrap_mean(
    tables: Sequence[CrossedTable], *, n_resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Return the weighted sum of the tables' means, with an interval over both runs and groups.

    Runs are drawn once a resample for all tables, groups for each table on its own. With one run the interval is over
    groups alone. It is left out (None) where a table has a single group. `n` counts the rows of all tables.

    Raises:
        DataError: no tables, an empty one, a value that is missing, or lengths that differ.
        ConfigError: `n_resamples` is under 1 or `confidence` not in (0, 1).

    >>> table = CrossedTable([1, 1, 0, 1], runs=[0, 0, 1, 1], groups=["a", "b", "a", "b"])
    >>> crossed_bootstrap_mean([table])
    Estimate(value=0.75, low=0.0, high=1.0, n=4)
    """
    check_settings(n_resamples, confidence)
    if not tables:
        raise DataError("there are no tables to average; give at least one")
    runs = {run: i for i, run in enumerate(dict.fromkeys(run for table in tables for run in table.runs))}
    cells = [_cells(table, runs) for table in tables]
    drawn_runs = _draws(len(runs), n_resamples, (seed, 0))
    replicates, value, n_rows = np.zeros(n_resamples), 0.0, 0
    for stream, (table, (sums, counts)) in enumerate(zip(tables, cells, strict=True), start=1):
        drawn = _draws(len(sums), n_resamples, (seed, stream))
        total = ((drawn @ sums) * drawn_runs).sum(axis=1)
        rows = ((drawn @ counts) * drawn_runs).sum(axis=1)
        # A draw that hits no row of this table (only where runs asked different prompts) says nothing about it.
        replicates += table.weight * np.divide(total, rows, out=np.full(n_resamples, np.nan), where=rows > 0)
        value += table.weight * float(sums.sum() / counts.sum())
        n_rows += int(counts.sum())
    known = replicates[np.isfinite(replicates)]
    if min(len(sums) for sums, _ in cells) < 2 or not known.size:
        return Estimate(value, n=n_rows)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), n=n_rows)


def _cells(table: CrossedTable, runs: dict[Hashable, int]) -> tuple[Array, Array]:
    """Return sum and number of the rows of each (group, run)."""
    values = vector(table.values, "values")
    same_length(values=values, runs=table.runs, groups=table.groups)
    codes = group_codes(table.groups, values.size)
    where = codes * len(runs) + np.array([runs[run] for run in table.runs])
    shape = (int(codes.max()) + 1, len(runs))
    size = shape[0] * shape[1]
    sums: Array = np.bincount(where, weights=values, minlength=size).reshape(shape).astype(np.float64)
    counts: Array = np.bincount(where, minlength=size).reshape(shape).astype(np.float64)
    return sums, counts


def _draws(n: int, n_resamples: int, seed: tuple[int, int]) -> Array:
    """Return, shape (resamples, n), how often each of n units was drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)
