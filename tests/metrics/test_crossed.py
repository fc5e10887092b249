from __future__ import annotations

import numpy as np
import pytest

from mocae.errors import DataError
from mocae.metrics import CrossedTable, bootstrap_mean, crossed_bootstrap_mean
from mocae.types import Estimate


def table(seed: int, n_runs: int, n_groups: int, *, between_runs: float = 0.0, weight: float = 1.0) -> CrossedTable:
    """Prompts in groups of two, each asked in every run; a run's values are shifted by chance."""
    rng = np.random.default_rng(seed)
    shift = between_runs * rng.standard_normal(n_runs)
    rows = [(rng.normal() + shift[r], r, f"g{g}") for g in range(n_groups) for _ in range(2) for r in range(n_runs)]
    values, runs, groups = zip(*rows, strict=True)
    return CrossedTable(values, runs, groups, weight)


def by_hand(tables: list[CrossedTable], n: int, seed: int) -> tuple[float, float]:
    """The same interval with rows really drawn, one resample after the other, from another stream of numbers."""
    rng = np.random.default_rng(seed)
    runs = list(dict.fromkeys(run for one in tables for run in one.runs))
    found = []
    for _ in range(n):
        drawn_runs = rng.choice(len(runs), len(runs))
        total = 0.0
        for one in tables:
            names = list(dict.fromkeys(one.groups))
            rows = []
            for name in rng.choice(names, len(names)):
                for run in drawn_runs:
                    rows += [
                        value
                        for value, r, group in zip(one.values, one.runs, one.groups, strict=True)
                        if group == name and r == runs[run]
                    ]
            total += one.weight * float(np.mean(rows))
        found.append(total)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_it_agrees_with_rows_really_drawn() -> None:
    tables = [table(0, 3, 8, between_runs=0.5, weight=0.5), table(1, 3, 5, weight=0.5)]
    found = crossed_bootstrap_mean(tables, n_resamples=4000)
    low, high = by_hand(tables, 1500, seed=9)
    assert found.value == pytest.approx(sum(0.5 * np.mean(one.values) for one in tables))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08)


def test_one_run_is_the_bootstrap_over_groups() -> None:
    one = table(2, 1, 30)
    crossed = crossed_bootstrap_mean([one], n_resamples=4000)
    plain = bootstrap_mean(one.values, groups=one.groups, n_resamples=4000)
    assert crossed.value == pytest.approx(plain.value)
    assert (crossed.low, crossed.high) == pytest.approx((plain.low, plain.high), abs=0.03)


def test_runs_that_disagree_widen_the_interval() -> None:
    calm, wild = (crossed_bootstrap_mean([table(3, 3, 40, between_runs=spread)]) for spread in (0.0, 2.0))
    assert width(wild) > 3 * width(calm)


def test_running_again_on_the_same_prompts_does_not_narrow_it() -> None:
    one = table(4, 1, 30)
    nine = CrossedTable(list(one.values) * 9, sorted([*range(9)] * len(one.values)), list(one.groups) * 9)
    first, again = (crossed_bootstrap_mean([t], n_resamples=4000) for t in (one, nine))
    assert (again.low, again.high) == pytest.approx((first.low, first.high), abs=0.03)


def test_a_lucky_seed_settles_nothing() -> None:
    # 2 of 3 runs show nothing, one shows a lot, on every prompt
    one = CrossedTable([0.0, 0.0, 1.0] * 20, [0, 1, 2] * 20, [str(i // 3) for i in range(60)])
    found = crossed_bootstrap_mean([one])
    assert (found.value, found.low, found.high) == (pytest.approx(1 / 3), 0.0, 1.0)


def test_runs_with_other_prompts_are_taken_as_they_come() -> None:
    one = CrossedTable([1.0, 1.0, 0.0], [0, 0, 1], ["a", "b", "b"])
    found = crossed_bootstrap_mean([one], n_resamples=500)
    assert found.value == pytest.approx(2 / 3)
    assert found.low is not None
    assert 0 <= found.low <= found.value


def test_a_single_group_has_no_interval() -> None:
    assert crossed_bootstrap_mean([CrossedTable([1, 0], [0, 1], ["a", "a"])]).low is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="no tables"):
        crossed_bootstrap_mean([])
    with pytest.raises(DataError, match="values is empty"):
        crossed_bootstrap_mean([CrossedTable([], [], [])])
    with pytest.raises(DataError, match="rows do not match"):
        crossed_bootstrap_mean([CrossedTable([1, 2], [0], ["a", "b"])])
