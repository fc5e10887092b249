"""Two systems compared over several runs: how far they differ, and whether seeds or prompts could have made it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mocae.evaluation.measure import Bootstrap, paired, shares
from mocae.metrics import CrossedTable, crossed_bootstrap_mean, widened
from mocae.types import Estimate, Sample

__all__ = ["SeedDifference", "difference_over_seeds"]

_Pair = tuple[Sequence[Sample], Sequence[Sample]]


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
    estimate = crossed_bootstrap_mean(tables, **boot.arguments())
    return widened(estimate, parts, span=(-1.0, 1.0), confidence=boot.confidence)


def _tables(pairs: Sequence[_Pair], axes: Sequence[str], *, one_run: bool) -> list[CrossedTable]:
    """Return one table for each (axis, kind of probe), weighed as in `mean_axis_score`."""
    tables: dict[tuple[str, str], list[tuple[float, int, str]]] = {}
    for run, (first, second) in enumerate(pairs):
        for key, rows in paired(first, second, axes).items():
            number = 0 if one_run else run
            tables.setdefault(key, []).extend((value, number, group or f"\0{i}") for i, (value, group) in rows.items())
    keys = sorted(tables)
    made = []
    for key, share in zip(keys, shares(keys), strict=True):
        values, runs, groups = zip(*tables[key], strict=True)
        made.append(CrossedTable(values, runs, groups, weight=share))
    return made
