"""Two systems compared over several runs: how far they differ, and whether seeds or prompts could have made it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mocae.evaluation.measure import Bootstrap, axis_table
from mocae.metrics import CrossedTable, crossed_bootstrap_mean, widened
from mocae.types import Estimate, Sample

__all__ = ["SeedDifference", "difference_over_seeds"]

_Pair = tuple[Sequence[Sample], Sequence[Sample]]
_Rows = list[tuple[float, int, str]]


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """The difference of two systems in `mean_axis_score`, over runs that differ in their seed.

    Attributes:
        value: mean over runs and prompts.
        low: of the interval over prompts and seeds both, None where it makes no sense. With one run: over prompts.
        high: of the same interval.
        n: pairs of answers behind it.
        prompts_only: low and high of the interval over prompts alone, which other seeds may leave.
        by_seed: the difference in each run, in order.
        std: standard deviation of `by_seed`, None for one run.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    prompts_only: tuple[float | None, float | None]
    by_seed: tuple[float | None, ...]
    std: float | None


def difference_over_seeds(pairs: Sequence[_Pair], axes: Sequence[str], *, boot: Bootstrap) -> SeedDifference:
    """Return mean_axis_score(first) - mean_axis_score(second) over several runs, paired by prompt in each run.

    Prompts are drawn in groups (one fact in several wordings is one topic), seeds are drawn as well, each
    independently of the other: see `mocae.metrics.crossed_bootstrap_mean`.

    Args:
        pairs: for each run the judged samples of the first and of the second system.
        axes: what the mean goes over.
        boot: resamples, confidence, seed.
    """
    by_seed = tuple(_mean([pair], axes, Bootstrap(1, boot.confidence)).value for pair in pairs)
    known = [value for value in by_seed if value is not None]
    whole, over_prompts = _mean(pairs, axes, boot), _mean(pairs, axes, boot, one_run=True)
    return SeedDifference(
        whole.value,
        whole.low,
        whole.high,
        whole.n,
        (over_prompts.low, over_prompts.high),
        by_seed,
        statistics.stdev(known) if len(known) > 1 else None,
    )


def _mean(pairs: Sequence[_Pair], axes: Sequence[str], boot: Bootstrap, *, one_run: bool = False) -> Estimate:
    """Return the mean difference; `one_run` takes all answers to a prompt together, so that no run is drawn."""
    tables = _tables(pairs, axes, one_run=one_run)
    if not tables:
        return Estimate(None)
    parts = [(table.weight, table.values, table.groups) for table in tables]
    found = crossed_bootstrap_mean(tables, **boot.arguments())
    return widened(found, parts, span=(-1.0, 1.0), confidence=boot.confidence)


def _tables(pairs: Sequence[_Pair], axes: Sequence[str], *, one_run: bool) -> list[CrossedTable]:
    """Return one table for each (axis, kind of probe), weighed as in `mean_axis_score`."""
    found: dict[tuple[str, str], _Rows] = {}
    for run, (first, second) in enumerate(pairs):
        mine, theirs = axis_table(first, axes), axis_table(second, axes)
        for key, rows in mine.items():
            others: Mapping[str, tuple[float, str]] = theirs.get(key, {})
            found.setdefault(key, []).extend(
                (value - others[i][0], run, group or f"\0{i}") for i, (value, group) in rows.items() if i in others
            )
    kept = {key: rows for key, rows in sorted(found.items()) if rows}
    probes = [axis for axis, _ in kept]
    return [
        CrossedTable(
            [value for value, _, _ in rows],
            [0 if one_run else run for _, run, _ in rows],
            [group for _, _, group in rows],
            weight=1 / (len(set(probes)) * probes.count(axis)),
        )
        for (axis, _), rows in kept.items()
    ]
