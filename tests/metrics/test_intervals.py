from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mocae.errors import ConfigError, DataError
from mocae.metrics import (
    Table,
    bootstrap_mean,
    bootstrap_statistic,
    bootstrap_tables,
    estimate_rate,
    expected_calibration_error,
    paired_bootstrap_difference,
)
from mocae.types import Estimate


def product(truthful: np.ndarray, informative: np.ndarray) -> float:
    return float(truthful.mean() * informative.mean())


def test_interval_of_three_rows_is_the_one_of_all_27_resamples() -> None:
    values = [0.0, 1.0, 4.0]
    every_mean = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    # 0.1 and 0.9 fall inside a step of the exact distribution, so sampling noise cannot move them
    low, high = np.quantile(every_mean, [0.1, 0.9], method="inverted_cdf")
    estimate = bootstrap_mean(values, n_resamples=20_000, confidence=0.8)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=200)
    ours = bootstrap_mean(values, n_resamples=20_000, confidence=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours.value == pytest.approx(values.mean())
    assert ours.n == 200


def test_groups_agree_with_a_bootstrap_written_as_a_loop() -> None:
    rng = np.random.default_rng(3)
    members = [rng.normal(loc=rng.normal(), size=size) for size in rng.integers(1, 9, size=40)]
    values = np.concatenate(members)
    groups = [f"fact {g}" for g, rows in enumerate(members) for _ in rows]
    means = [np.concatenate([members[i] for i in rng.choice(40, size=40)]).mean() for _ in range(4000)]
    ours = bootstrap_mean(values, groups=groups, n_resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.04)


def test_repeating_every_row_within_its_group_changes_nothing() -> None:
    values = np.random.default_rng(4).random(60)
    once = bootstrap_mean(values)
    thrice = bootstrap_mean(np.repeat(values, 3), groups=[i // 3 for i in range(180)])
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    taken_as_rows = bootstrap_mean(np.repeat(values, 3))
    width, narrow = once.high - once.low, taken_as_rows.high - taken_as_rows.low
    assert narrow == pytest.approx(width / np.sqrt(3), rel=0.1)


def test_shuffled_rows_of_groups_keep_value_and_nearly_the_interval() -> None:
    rng = np.random.default_rng(5)
    values, groups = rng.random(90), np.repeat(np.arange(30), 3)
    order = rng.permutation(90)
    a = bootstrap_mean(values, groups=groups.tolist(), n_resamples=20_000)
    b = bootstrap_mean(values[order], groups=groups[order].tolist(), n_resamples=20_000)
    assert a.value == pytest.approx(b.value)
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.005)


@pytest.mark.parametrize("alone", ["", None])
def test_rows_without_a_group_stand_alone(alone: str | None) -> None:
    values = [0, 1, 1, 0, 1]
    assert bootstrap_mean(values, groups=[alone] * 5) == bootstrap_mean(values)
    assert bootstrap_mean(values, groups=[alone, "a", alone, "b", "b"]) == bootstrap_mean(
        values, groups=[1, 2, 3, 4, 4]
    )


def test_a_single_group_has_no_interval() -> None:
    assert bootstrap_mean([0, 1, 1, 1], groups=["a"] * 4) == Estimate(value=0.75, low=None, high=None, n=4)
    assert bootstrap_mean([0.5]) == Estimate(value=0.5, low=None, high=None, n=1)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for seed in range(300):
        shared = np.repeat(rng.normal(size=50), 4)  # four phrasings of a fact share its difficulty
        values = shared + 0.1 * rng.normal(size=200)
        estimate = bootstrap_mean(values, groups=[i // 4 for i in range(200)], n_resamples=400, seed=seed)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_seed_decides_and_global_state_is_left_alone() -> None:
    values = np.random.default_rng(7).random(50)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert (np.random.get_state()[1] == before).all()


def test_thousand_resamples_of_400_rows_are_quick() -> None:
    values, groups = np.random.default_rng(8).random(400), [i // 4 for i in range(400)]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        bootstrap_mean(values)
        bootstrap_mean(values, groups=groups)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 0.5]), min_size=2, max_size=30), st.data())
def test_interval_lies_in_the_range_of_the_values(values: list[float], data: st.DataObject) -> None:
    groups = data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values)))
    estimate = bootstrap_mean(values, groups=groups, n_resamples=50)
    assert estimate.value == pytest.approx(sum(values) / len(values))
    if len(set(groups)) > 1:
        assert min(values) - 1e-12 <= estimate.low <= estimate.high <= max(values) + 1e-12


def test_estimate_rate() -> None:
    assert estimate_rate([]) == Estimate(value=None, low=None, high=None, n=0)
    assert estimate_rate([True, False, True, True]) == bootstrap_mean([1, 0, 1, 1])
    with pytest.raises(DataError, match=r"values\[1\] = 75 must lie in \[0, 1\]"):
        estimate_rate([0.5, 75])


def test_paired_difference_is_the_mean_of_differences() -> None:
    rng = np.random.default_rng(9)
    hard = rng.random(100)
    a, b = (hard < 0.7).astype(float), (hard < 0.6).astype(float)
    paired = paired_bootstrap_difference(a, b)
    assert paired == bootstrap_mean(a - b)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    alone = bootstrap_mean(a), bootstrap_mean(b)
    assert paired.high - paired.low < 0.7 * np.hypot(*(e.high - e.low for e in alone))


@pytest.mark.parametrize("per_group", [1, 3])
def test_systems_that_agree_everywhere_may_differ_by_the_exact_bound(per_group: int) -> None:
    a, groups = [1.0, 0.0] * 15 * per_group, [i // per_group for i in range(30 * per_group)]
    same = paired_bootstrap_difference(a, a, groups=groups)
    bound = stats.binomtest(0, 30).proportion_ci(0.95, "exact").high
    assert (same.value, same.n) == (0.0, 30 * per_group)
    assert (same.low, same.high) == pytest.approx((-bound, bound))
    ahead = paired_bootstrap_difference([1.0] * 30, [0.0] * 30)
    assert (ahead.low, ahead.high) == pytest.approx((1 - 2 * bound, 1.0))  # an unlike row may be -1


def test_a_difference_of_no_rates_has_no_bound_on_rows_not_seen() -> None:
    assert paired_bootstrap_difference([8.0, 5.0], [3.0, 0.0]) == Estimate(value=5.0, low=5.0, high=5.0, n=2)


def test_statistic_of_a_mean_is_the_bootstrap_of_the_mean() -> None:
    values, groups = np.random.default_rng(10).random(60), [i // 5 for i in range(60)]
    general = bootstrap_statistic(lambda x: x.mean(), {"x": values}, groups=groups)
    special = bootstrap_mean(values, groups=groups)
    assert (general.value, general.low, general.high) == pytest.approx((special.value, special.low, special.high))


def test_columns_are_resampled_together() -> None:
    truthful = np.random.default_rng(11).random(80) < 0.5
    # informative is the opposite, so the sum of both shares is 1 on every resample; drawn apart it would vary
    both = {"truthful": truthful, "informative": ~truthful}
    total = bootstrap_statistic(lambda truthful, informative: truthful.mean() + informative.mean(), both)
    assert (total.value, total.low, total.high) == pytest.approx((1, 1, 1))
    share = truthful.mean()
    assert bootstrap_statistic(product, both).value == pytest.approx(share * (1 - share))


def test_statistic_may_be_a_calibration_error() -> None:
    rng = np.random.default_rng(12)
    confidence = rng.random(200)
    outcome = rng.random(200) < confidence**2
    columns = {"confidences": confidence, "outcomes": outcome}
    estimate = bootstrap_statistic(expected_calibration_error, columns, n_resamples=200)
    assert estimate.value == expected_calibration_error(confidence, outcome)
    assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_tables_are_resampled_apart() -> None:
    rng = np.random.default_rng(13)
    a, b = rng.random(300), rng.random(100)
    estimate = bootstrap_tables(lambda a, b: a.mean() - b.mean(), [Table({"a": a}), Table({"b": b})], n_resamples=4000)
    expected = 2 * 1.96 * np.sqrt(a.var() / 300 + b.var() / 100)  # the variances of independent means add
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.06)
    assert estimate.n == 400
    assert estimate.value == pytest.approx(a.mean() - b.mean())


def test_tables_of_one_length_do_not_share_their_draws() -> None:
    x = np.random.default_rng(14).random(100)
    apart = bootstrap_tables(lambda a, b: a.mean() - b.mean(), [Table({"a": x}), Table({"b": x})], n_resamples=4000)
    alone = bootstrap_mean(x, n_resamples=4000)
    assert apart.high - apart.low == pytest.approx(np.sqrt(2) * (alone.high - alone.low), rel=0.06)


def test_a_table_with_a_single_group_leaves_no_interval() -> None:
    tables = [Table({"a": [0, 1, 1]}), Table({"b": [0, 1]}, groups=["one", "one"])]
    estimate = bootstrap_tables(lambda a, b: a.mean() + b.mean(), tables)
    assert (estimate.low, estimate.high, estimate.n) == (None, None, 5)


def test_refuses_what_has_no_mean() -> None:
    with pytest.raises(DataError, match="values is empty"):
        bootstrap_mean([])
    with pytest.raises(DataError, match=r"values\[1\] = nan is missing .* \(1 such of 3\)"):
        bootstrap_mean([1, None, 0])
    with pytest.raises(DataError, match="values is not an array of numbers"):
        bootstrap_mean(["good", "bad"])
    with pytest.raises(DataError, match=r"values has shape \(1, 2\)"):
        bootstrap_mean([[1, 2]])
    with pytest.raises(DataError, match="groups has 2 entries for 3 rows"):
        bootstrap_mean([1, 0, 1], groups=["a", "b"])
    with pytest.raises(DataError, match="first has 2, second has 1"):
        paired_bootstrap_difference([1, 0], [1])
    with pytest.raises(ConfigError, match="n_resamples is 0"):
        bootstrap_mean([1, 0], n_resamples=0)
    with pytest.raises(ConfigError, match=r"confidence is 95\.0"):
        bootstrap_mean([1, 0], confidence=95.0)


def test_refuses_statistics_that_are_not_numbers() -> None:
    with pytest.raises(DataError, match="statistic is nan on resample 0"):
        bootstrap_statistic(lambda x: float("nan"), {"x": [1, 2]})
    with pytest.raises(DataError, match="truthful has 2, informative has 1"):
        bootstrap_statistic(product, {"truthful": [1, 0], "informative": [1]})
    with pytest.raises(DataError, match=r"columns are \['x', 'x'\]"):
        bootstrap_tables(lambda x: x.mean(), [Table({"x": [1]}), Table({"x": [1]})])
    with pytest.raises(DataError, match="no columns"):
        bootstrap_statistic(lambda: 0.0, {})


@pytest.mark.parametrize("n", [2, 24, 300])
def test_what_never_occurred_has_the_exact_binomial_bound(n: int) -> None:
    rows = [False] * (3 * n)
    groups = [str(i % n) for i in range(3 * n)]  # three phrasings of each question are one question
    never, always = estimate_rate(rows, groups=groups), estimate_rate([True] * (3 * n), groups=groups)
    exact = stats.binomtest(0, n).proportion_ci(0.95, "exact")
    assert (never.value, never.low, never.n) == (0.0, 0.0, 3 * n)
    assert never.high == pytest.approx(exact.high)
    assert (always.low, always.high) == pytest.approx((1 - exact.high, 1.0))


def test_one_group_says_nothing_even_of_what_never_occurred() -> None:
    assert estimate_rate([0, 0], groups=["a", "a"]) == Estimate(value=0.0, low=None, high=None, n=2)
