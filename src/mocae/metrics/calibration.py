"""How true probabilities are: calibration error, reliability bins, Brier score, likelihood, risk against coverage.

Bins are closed on the right, (low, high], and the first holds its lower edge as well, so every confidence in [0, 1]
is in one bin: 0.2 of five bins is in (0, 0.2]. Edges are the exact quotients i / n_bins. A confidence kept in
float32 may lie just above its edge.

Kept here, although libraries have parts of it: scikit-learn has no calibration error, and its `log_loss` clips what was
said to be impossible; torchmetrics puts an edge in the bin above and needs torch. The Brier score is one line of numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mocae.errors import ConfigError, DataError
from mocae.metrics._checks import Array, Values, distributions, flags, fractions, same_length, vector

__all__ = [
    "Binning",
    "ReliabilityBin",
    "RiskCoverage",
    "brier_score",
    "classwise_calibration_error",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
    "risk_coverage",
]

Binning: TypeAlias = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bar of a reliability diagram: rows with a confidence in (low, high].

    Attributes:
        low, high: edges; the first bin holds `low` as well.
        confidence: mean confidence of its rows, None in an empty bin.
        accuracy: share of its rows whose outcome is 1, None in an empty bin.
        n: number of rows.
    """

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """Mean loss of the most confident rows, for every number of rows kept. Lower is better.

    Attributes:
        coverage: shape (N,), share of rows kept: 1/N, 2/N, ..., 1.
        risk: shape (N,), mean loss of those rows; the last is the mean of all.
        aurc: area under the curve, the mean of `risk`.
    """

    coverage: Array
    risk: Array
    aurc: float


def reliability_bins(
    confidences: Values, outcomes: Values, *, n_bins: int = 15, binning: Binning = "width"
) -> list[ReliabilityBin]:
    """Return the bins of a reliability diagram, from low to high, empty ones included.

    Args:
        confidences: shape (N,), in [0, 1].
        outcomes: shape (N,), True or 1 where what was announced came true.
        n_bins: number of bins.
        binning: "width": equal widths over [0, 1]; "mass": edges at quantiles of the confidences, so that bins hold
            about equally many rows. Equal confidences share a bin, so "mass" may give fewer bins than asked for.

    Raises:
        DataError: no rows, lengths that differ, a confidence outside [0, 1], an outcome other than 0 and 1.
        ConfigError: `n_bins` is under 1 or `binning` is not known.

    >>> reliability_bins([0.5, 0.9, 0.8], [0, 1, 0], n_bins=2)[1]
    ReliabilityBin(low=0.5, high=1.0, confidence=0.8500000000000001, accuracy=0.5, n=2)
    """
    conf, came_true = fractions(confidences, "confidences"), flags(outcomes, "outcomes")
    same_length(confidences=conf, outcomes=came_true)
    edges = _edges(conf, n_bins=n_bins, binning=binning)
    index = np.searchsorted(edges[1:-1], conf, side="left")  # left: a value on an edge belongs to the bin below
    counts = np.bincount(index, minlength=edges.size - 1)
    conf_sums = np.bincount(index, weights=conf, minlength=edges.size - 1)
    true_sums = np.bincount(index, weights=came_true, minlength=edges.size - 1)
    return [
        ReliabilityBin(
            low=float(low),
            high=float(high),
            confidence=float(conf_sum / n) if n else None,
            accuracy=float(true_sum / n) if n else None,
            n=int(n),
        )
        for low, high, conf_sum, true_sum, n in zip(edges[:-1], edges[1:], conf_sums, true_sums, counts, strict=True)
    ]


def expected_calibration_error(
    confidences: Values, outcomes: Values, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the mean gap between confidence and accuracy, weighted by rows a bin: in [0, 1], lower is better.

    It grows with the number of bins and with fewer rows even for perfect probabilities; compare like with like.

    The arguments are those of `reliability_bins`.

    Raises:
        DataError: see `reliability_bins`.
        ConfigError: see `reliability_bins`.

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, arXiv:1706.04599, equation 3; "mass": Nixon et al.,
        *Measuring Calibration in Deep Learning*, arXiv:1904.01685, section 3.

    Deviation:
        A confidence of exactly 0 is in the first bin; the code of Guo et al. leaves such rows out.

    >>> round(expected_calibration_error([0.25, 0.25, 0.55, 0.75, 0.75], [0, 0, 1, 1, 1], n_bins=2), 4)
    0.29
    """
    bins = reliability_bins(confidences, outcomes, n_bins=n_bins, binning=binning)
    gaps = [b.n * abs(b.accuracy - b.confidence) for b in bins if b.accuracy is not None and b.confidence is not None]
    return float(sum(gaps) / len(confidences))


def classwise_calibration_error(
    probs: Values, outcomes: Values, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the mean over classes of the calibration error of each class: in [0, 1], lower is better.

    Args:
        probs: shape (N, K), in [0, 1]. With a matrix of outcomes the rows need not sum to 1.
        outcomes: shape (N,): the true class of each row, 0 to K - 1; or shape (N, K): 0 / 1 for each class, several
            of which may be 1 (for example: which expert's answer was acceptable).
        n_bins: see `reliability_bins`.
        binning: see `reliability_bins`.

    Raises:
        DataError: see `reliability_bins`; shapes that do not fit.
        ConfigError: see `reliability_bins`.

    Reference:
        Kull et al., *Beyond temperature scaling*, arXiv:1910.12656, section 2.2.

    >>> round(classwise_calibration_error([[0.75, 0.25], [0.25, 0.75]], [0, 1]), 4)
    0.25
    """
    p = fractions(probs, "probs", n_dims=2)
    n_classes = p.shape[1]
    if np.ndim(outcomes) == 2:
        came_true = flags(outcomes, "outcomes", n_dims=2)
    else:
        came_true = np.eye(n_classes, dtype=bool)[_labels(outcomes, n_classes)]
    if came_true.shape != p.shape:
        raise DataError(f"outcomes stand for shape {came_true.shape}, probs has {p.shape}; both must be (N, K)")
    errors = [
        expected_calibration_error(p[:, k], came_true[:, k], n_bins=n_bins, binning=binning) for k in range(n_classes)
    ]
    return float(np.mean(errors))


def brier_score(probs: Values, outcomes: Values) -> float:
    """Return the mean squared error of probabilities. Lower is better.

    Two conventions, told apart by the shape of `probs`. Binary, (N,): mean of (p - y)^2, in [0, 1]. Classes,
    (N, K): the squares are *summed* over the classes, so it lies in [0, 2], and two classes give twice the binary
    number.

    Args:
        probs: shape (N,): probability of outcome 1; or (N, K): one distribution a row.
        outcomes: shape (N,): 0 / 1 for binary; the true class 0 to K - 1 for classes.

    Raises:
        DataError: no rows, lengths that differ, a probability outside [0, 1], a row that does not sum to 1, an
            outcome that does not exist.

    Reference:
        Brier, *Verification of forecasts expressed in terms of probability*, 1950 (the sum over classes).

    >>> brier_score([0.75, 0.5], [1, 0]), brier_score([[0.25, 0.75], [0.5, 0.5]], [1, 0])
    (0.15625, 0.3125)
    """
    p, labels = _forecasts(probs, outcomes)
    squares = (p - np.eye(p.shape[1])[labels]) ** 2
    return float(np.mean(squares[:, 1] if np.ndim(probs) == 1 else squares.sum(axis=1)))


def negative_log_likelihood(probs: Values, outcomes: Values) -> float:
    """Return the mean of -log(probability of what happened), in nats. Lower is better.

    Nothing is clipped: infinity means that something happened which was said to be impossible.

    The arguments are those of `brier_score`.

    Raises:
        DataError: see `brier_score`.

    >>> round(negative_log_likelihood([0.5, 0.25], [1, 0]), 4)
    0.4904
    """
    p, labels = _forecasts(probs, outcomes)
    happened = p[np.arange(labels.size), labels]
    with np.errstate(divide="ignore"):
        return float(np.mean(-np.log(happened))) + 0.0  # + 0.0: a perfect forecast is 0, not -0


def _forecasts(probs: Values, outcomes: Values) -> tuple[Array, npt.NDArray[np.intp]]:
    """Return a distribution for each row and the class that came true; binary rows have the classes 0 and 1."""
    if np.ndim(probs) == 1:
        one, labels = fractions(probs, "probs"), flags(outcomes, "outcomes").astype(np.intp)
        p: Array = np.stack([1 - one, one], axis=1)
    else:
        p = distributions(probs, "probs")
        labels = _labels(outcomes, p.shape[1])
    same_length(probs=p, outcomes=labels)
    return p, labels


def risk_coverage(confidences: Values, losses: Values) -> RiskCoverage:
    """Return the risk-coverage curve: the mean loss if only the most confident rows are answered. Lower is better.

    Rows of equal confidence count with their mean loss, which is what a random order of them gives on average; the
    order of the input does not matter.

    Args:
        confidences: shape (N,), any finite numbers; higher is kept longer.
        losses: shape (N,), finite; 0 / 1 for errors.

    Raises:
        DataError: no rows, a missing value, or lengths that differ.

    Reference:
        Geifman and El-Yaniv, *Selective Classification for Deep Neural Networks*, arXiv:1705.08500; AURC: Geifman,
        Uziel and El-Yaniv, arXiv:1805.08206, section 3.

    >>> round(risk_coverage([0.9, 0.8, 0.1], [0, 0, 1]).aurc, 4)
    0.1111
    """
    conf, loss = vector(confidences, "confidences"), vector(losses, "losses")
    same_length(confidences=conf, losses=loss)
    _, inverse, sizes = np.unique(-conf, return_inverse=True, return_counts=True)
    tied = np.bincount(inverse, weights=loss) / sizes  # mean loss of each confidence, from the highest down
    kept = np.arange(1, loss.size + 1)
    risk = np.cumsum(np.repeat(tied, sizes)) / kept
    return RiskCoverage(coverage=kept / loss.size, risk=risk, aurc=float(risk.mean()))


def _edges(conf: Array, *, n_bins: int, binning: str) -> Array:
    if n_bins < 1:
        raise ConfigError(f"n_bins is {n_bins}; at least 1 is needed (15 is usual)")
    if binning == "width":
        # quotients, not linspace: i * (1 / n) can fall below the float nearest to i / n
        edges: Array = np.arange(n_bins + 1) / n_bins
        return edges
    if binning == "mass":
        inner = np.unique(np.quantile(conf, np.arange(1, n_bins) / n_bins)) if n_bins > 1 else np.empty(0)
        return np.concatenate(([0.0], inner[inner < conf.max()], [1.0]))
    raise ConfigError(f"binning is {binning!r}; accepted are 'width' and 'mass'")


def _labels(labels: Values, n_classes: int) -> npt.NDArray[np.intp]:
    array = vector(labels, "outcomes")
    wrong = np.flatnonzero(~np.isin(array, np.arange(n_classes)))
    if wrong.size:
        raise DataError(f"outcomes[{wrong[0]}] is {array[wrong[0]]:g}; the classes are 0 to {n_classes - 1}")
    return array.astype(np.intp)
