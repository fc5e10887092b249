from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from mocae.errors import ConfigError, DataError
from mocae.metrics import (
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
    risk_coverage,
)


def drawn(seed: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    confidences = rng.random(n)
    return confidences, (rng.random(n) < confidences**2).astype(int)


def loop_ece(confidences: np.ndarray, outcomes: np.ndarray, n_bins: int) -> float:
    """The formula of Guo et al. as a loop over bins (low, high], with 0 in the first."""
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        inside = [i for i, c in enumerate(confidences) if low < c <= high or (b == 0 and c == 0)]
        if inside:
            gap = sum(outcomes[i] for i in inside) / len(inside) - sum(confidences[i] for i in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(gap)
    return total


@pytest.mark.parametrize("n_bins", [1, 2, 10, 15])
def test_ece_agrees_with_torchmetrics(n_bins: int) -> None:
    confidences, outcomes = drawn(0)
    theirs = binary_calibration_error(torch.tensor(confidences), torch.tensor(outcomes), n_bins=n_bins)
    assert expected_calibration_error(confidences, outcomes, n_bins=n_bins) == pytest.approx(theirs.item())


def test_ece_by_hand() -> None:
    # (0, 0.5]: confidence 0.3, accuracy 1/2, gap 0.2, 2 rows; (0.5, 1]: confidence 0.8, accuracy 2/3, gap 2/15, 3 rows
    confidences, outcomes = [0.1, 0.5, 0.6, 0.8, 1.0], [0, 1, 1, 0, 1]
    expected = (2 * 0.2 + 3 * 2 / 15) / 5
    assert expected_calibration_error(confidences, outcomes, n_bins=2) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_ece_of_confidences_on_edges_agrees_with_a_loop(rows: list[tuple[int, bool]], n_bins: int) -> None:
    confidences, outcomes = np.array([c / 20 for c, _ in rows]), np.array([float(o) for _, o in rows])
    assert expected_calibration_error(confidences, outcomes, n_bins=n_bins) == pytest.approx(
        loop_ece(confidences, outcomes, n_bins)
    )


@pytest.mark.parametrize("n_bins", range(1, 51))
def test_a_confidence_on_an_edge_is_in_the_bin_below(n_bins: int) -> None:
    edges = [k / n_bins for k in range(n_bins + 1)]
    bins = reliability_bins(edges, [1] * (n_bins + 1), n_bins=n_bins)
    assert [b.n for b in bins] == [2] + [1] * (n_bins - 1)  # 0 joins the first
    assert [b.high for b in bins] == edges[1:]
    assert [b.low for b in bins] == edges[:-1]


def test_just_above_an_edge_is_in_the_next_bin() -> None:
    bins = reliability_bins([np.nextafter(0.2, 1), 0.2, np.nextafter(0.2, 0)], [1, 0, 1], n_bins=5)
    assert [b.n for b in bins] == [2, 1, 0, 0, 0]


@pytest.mark.parametrize(("ours", "theirs"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("decimals", [1, 16])
def test_bins_agree_with_scikit_learn(ours: str, theirs: str, decimals: int) -> None:
    confidences, outcomes = drawn(1)
    confidences = confidences.round(decimals)
    accuracy, confidence = calibration_curve(outcomes, confidences, n_bins=8, strategy=theirs)
    bins = [b for b in reliability_bins(confidences, outcomes, n_bins=8, binning=ours) if b.n]
    assert [b.confidence for b in bins] == pytest.approx(confidence)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)


def test_mass_bins_keep_certain_rows_apart() -> None:
    confidences, outcomes = drawn(1)
    confidences = np.clip(2 * confidences - 0.5, 0, 1)  # a quarter of them exactly 0, a quarter exactly 1
    bins = reliability_bins(confidences, outcomes, n_bins=8, binning="mass")
    assert (bins[0].low, bins[0].high, bins[0].n) == (0, 0, (confidences == 0).sum())
    accuracy, confidence = calibration_curve(outcomes, confidences, n_bins=8, strategy="quantile")
    assert [b.confidence for b in bins] == pytest.approx(confidence)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.n for b in reliability_bins([1.0, 1.0], [1, 0], binning="mass")] == [2]


def test_bins_hold_every_row_once_and_empty_ones_say_so() -> None:
    confidences, outcomes = [0.05, 0.95, 0.95], [0, 1, 0]
    bins = reliability_bins(confidences, outcomes, n_bins=10)
    assert len(bins) == 10
    assert sum(b.n for b in bins) == 3
    assert (bins[4].confidence, bins[4].accuracy, bins[4].n) == (None, None, 0)
    assert (bins[9].confidence, bins[9].accuracy, bins[9].n) == (0.95, 0.5, 2)


def test_mass_bins_are_even_and_do_not_depend_on_the_order() -> None:
    confidences, outcomes = drawn(2, n=400)
    assert [b.n for b in reliability_bins(confidences, outcomes, n_bins=8, binning="mass")] == [50] * 8
    tied = confidences.round(1)
    order = np.random.default_rng(3).permutation(400)
    straight, shuffled = (
        reliability_bins(c, o, n_bins=8, binning="mass") for c, o in ((tied, outcomes), (tied[order], outcomes[order]))
    )
    assert [(b.low, b.high, b.accuracy, b.n) for b in straight] == [(b.low, b.high, b.accuracy, b.n) for b in shuffled]
    assert [b.confidence for b in straight] == pytest.approx([b.confidence for b in shuffled])


@pytest.mark.parametrize("constant", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("binning", ["width", "mass"])
def test_constant_confidence_has_the_gap_to_the_base_rate(constant: float, binning: str) -> None:
    outcomes = [1, 0, 0, 0]
    assert expected_calibration_error([constant] * 4, outcomes, binning=binning) == pytest.approx(abs(constant - 0.25))


def test_perfect_confidence_has_no_error() -> None:
    assert expected_calibration_error([0.0, 1.0, 1.0], [0, 1, 1]) == 0
    assert expected_calibration_error([1.0, 0.0], [0, 1]) == 1


def test_classwise_is_the_mean_of_binary_errors() -> None:
    rng = np.random.default_rng(4)
    probs, labels = rng.dirichlet([1, 2, 3], size=300), rng.integers(0, 3, 300)
    expected = np.mean([loop_ece(probs[:, k], (labels == k).astype(float), 15) for k in range(3)])
    assert classwise_calibration_error(probs, labels) == pytest.approx(expected)
    one_hot = np.stack([labels == k for k in range(3)], axis=1)
    assert classwise_calibration_error(probs, one_hot) == classwise_calibration_error(probs, labels)
    several = rng.random((300, 3)) < 0.5
    expected = np.mean([loop_ece(probs[:, k], several[:, k].astype(float), 15) for k in range(3)])
    assert classwise_calibration_error(probs, several) == pytest.approx(expected)
    with pytest.raises(DataError, match=r"outcomes stand for shape \(2, 2\), probs has \(1, 2\)"):
        classwise_calibration_error([[0.5, 0.5]], [0, 1])


def test_brier_score_has_two_conventions() -> None:
    confidences, outcomes = drawn(5)
    binary = brier_score(confidences, outcomes)
    assert binary == pytest.approx(brier_score_loss(outcomes, confidences))
    both = np.stack([1 - confidences, confidences], axis=1)
    assert brier_score(both, outcomes) == pytest.approx(2 * binary)
    assert (brier_score([1.0], [0]), brier_score([[1.0, 0.0]], [1])) == (1.0, 2.0)  # the worst of each
    assert (brier_score([1.0], [1]), brier_score([[0.0, 1.0]], [1])) == (0.0, 0.0)


def test_brier_and_likelihood_of_classes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    probs, labels = rng.dirichlet([1, 1, 1, 1], size=200), rng.integers(0, 4, 200)
    assert brier_score(probs, labels) == pytest.approx(
        brier_score_loss(labels, probs, labels=[0, 1, 2, 3], scale_by_half=False)
    )
    assert negative_log_likelihood(probs, labels) == pytest.approx(log_loss(labels, probs, labels=[0, 1, 2, 3]))
    confidences, outcomes = drawn(7)
    assert negative_log_likelihood(confidences, outcomes) == pytest.approx(log_loss(outcomes, confidences))


def test_likelihood_is_not_clipped() -> None:
    assert negative_log_likelihood([0.5, 0.0], [1, 1]) == math.inf
    assert negative_log_likelihood([[1.0, 0.0]], [1]) == math.inf
    perfect = negative_log_likelihood([1.0, 0.0], [1, 0])
    assert str(perfect) == "0.0"
    assert negative_log_likelihood([0.5, 0.25], [1, 0]) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_risk_coverage_by_hand() -> None:
    # most confident first: losses 0, 1, 0, 1 -> risks 0, 1/2, 1/3, 1/2
    curve = risk_coverage([0.2, 0.9, 0.5, 0.7], [1, 0, 0, 1])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_risk_of_equal_confidences_is_the_mean_over_their_orders() -> None:
    confidences, losses = [0.9, 0.5, 0.5, 0.5, 0.1], [0.0, 1.0, 0.0, 0.5, 1.0]
    curves = []
    for order in itertools.permutations([1, 2, 3]):
        ordered = [losses[i] for i in (0, *order, 4)]
        curves.append([sum(ordered[:k]) / k for k in range(1, 6)])
    assert risk_coverage(confidences, losses).risk.tolist() == pytest.approx(np.mean(curves, axis=0).tolist())


def test_confidence_that_ranks_errors_last_has_the_lowest_risk() -> None:
    losses = [0, 0, 0, 1, 1]
    best, worst = risk_coverage([5, 4, 3, 2, 1], losses).aurc, risk_coverage([1, 2, 3, 4, 5], losses).aurc
    silent = risk_coverage([1] * 5, losses)
    assert best < silent.aurc < worst
    assert silent.risk.tolist() == pytest.approx([0.4] * 5)


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"confidences\[1\] = 1.2 must lie in \[0, 1\]"):
        expected_calibration_error([0.5, 1.2], [0, 1])
    with pytest.raises(DataError, match=r"outcomes\[0\] = 2 must be True / False"):
        expected_calibration_error([0.5, 1.0], [2, 1])
    with pytest.raises(DataError, match="confidences has 2, outcomes has 1"):
        reliability_bins([0.5, 1.0], [1])
    with pytest.raises(DataError, match="confidences is empty"):
        reliability_bins([], [])
    with pytest.raises(ConfigError, match="n_bins is 0"):
        expected_calibration_error([0.5], [1], n_bins=0)
    with pytest.raises(DataError, match=r"probs\[1\] sums to 0.9"):
        brier_score([[0.5, 0.5], [0.5, 0.4]], [0, 1])
    with pytest.raises(DataError, match=r"outcomes\[1\] is 2; the classes are 0 to 1"):
        negative_log_likelihood([[0.5, 0.5], [0.5, 0.5]], [0, 2])
    with pytest.raises(DataError, match=r"outcomes\[0\] is 0.5; the classes are 0 to 1"):
        brier_score([[0.5, 0.5]], [0.5])
    with pytest.raises(DataError, match="confidences has 1, losses has 2"):
        risk_coverage([0.5], [1, 0])


def test_binning_is_one_of_two() -> None:
    # the unchecked function: under test every call is type-checked, and the type refuses the word first
    unchecked = getattr(reliability_bins, "__wrapped__", reliability_bins)
    with pytest.raises(ConfigError, match="binning is 'quantile'; accepted are 'width' and 'mass'"):
        unchecked([0.5], [1], n_bins=3, binning="quantile")
