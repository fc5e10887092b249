"""Length-controlled win rate: what the win rate would be if both answers were equally long."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mocae.errors import DataError
from mocae.metrics._checks import Array, Values, same_length, vector
from mocae.metrics.alignment import wins_from_preferences

__all__ = ["LengthControlledWinRate", "length_controlled_win_rate"]

_L2 = 1.0
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True)
class LengthControlledWinRate:
    """Win rate predicted for answers of equal length. Higher is better.

    Attributes:
        value: in [0, 1]; None when no row is scored.
        standard_error: robust (sandwich) standard error carried over to the rate; None under three scored rows.
        length_effect: change of the log-odds of winning when the length term goes from 0 to 1; above 0 the judge
            prefers longer answers.
        n: scored rows.
        n_unscored: rows without a preference, which are in none of the other numbers.
    """

    value: float | None
    standard_error: float | None
    length_effect: float | None
    n: int
    n_unscored: int


def length_controlled_win_rate(
    preferences: Values, system_lengths: Values, reference_lengths: Values
) -> LengthControlledWinRate:
    r"""Return the win rate at equal length, from one file of preferences. Higher is better.

    The model is a logistic regression on soft labels, w_i = preference_i - 1:

        logit P(win_i) = theta + phi * tanh(d_i / std(d)),   d_i = system length - reference length,

    fitted by scikit-learn to maximum likelihood with a ridge of 1/2 phi^2 (theta is free). The value is
    sigmoid(theta), the prediction at d = 0.

    Args:
        preferences: shape (N,), see `mocae.metrics.wins_from_preferences`.
        system_lengths: shape (N,), of the system's answers; AlpacaEval counts characters.
        reference_lengths: shape (N,), of the reference's.

    Raises:
        DataError: no rows, lengths that differ, a negative length, or a preference out of range.

    Reference:
        Dubois et al., *Length-Controlled AlpacaEval*, arXiv:2404.04475, section 3.

    Deviation:
        The published model has a third term, the difficulty of each instruction times the system's sensitivity to it.
        That difficulty is fitted on the annotations of many systems at once and cannot be known from one file, so it
        is left out here; and the published strength of the ridge is cross-validated. Published length-controlled
        rates therefore differ from this one by some points; compare systems within one of the two.

    >>> equal = length_controlled_win_rate([2, 2, 1, 1], [9, 9, 9, 9], [9, 9, 9, 9])
    >>> equal.value, equal.length_effect
    (0.5, 0.0)
    """
    wins = wins_from_preferences(preferences)
    mine, theirs = vector(system_lengths, "system_lengths"), vector(reference_lengths, "reference_lengths")
    same_length(preferences=np.asarray(wins, dtype=object), system_lengths=mine, reference_lengths=theirs)
    for name, lengths in (("system_lengths", mine), ("reference_lengths", theirs)):
        if (lengths < 0).any():
            i = int(np.flatnonzero(lengths < 0)[0])
            raise DataError(f"{name}[{i}] is {lengths[i]:g}; a length must be at least 0")
    kept = [i for i, win in enumerate(wins) if win is not None]
    n_unscored = len(wins) - len(kept)
    if not kept:
        return LengthControlledWinRate(None, None, None, 0, n_unscored)
    y = np.array([wins[i] for i in kept], dtype=float)
    if y.min() == y.max() and y[0] in (0.0, 1.0):  # the likelihood has no maximum; the limit is known
        return LengthControlledWinRate(float(y[0]), None, 0.0, len(kept), n_unscored)
    design = np.column_stack([np.ones(len(kept)), _length_term((mine - theirs)[kept])])
    beta = _fit(design, y)
    value = 1 / (1 + math.exp(-beta[0]))
    return LengthControlledWinRate(value, _standard_error(design, y, beta), float(beta[1]), len(kept), n_unscored)


def _length_term(differences: Array) -> Array:
    spread = differences.std()
    term: Array = np.tanh(differences / spread) if spread > 0 else np.zeros_like(differences)
    return term


def _fit(design: Array, y: Array) -> Array:
    """Return (theta, phi): a soft label is a row won with weight y and one lost with weight 1 - y."""
    from sklearn.linear_model import LogisticRegression

    term = design[:, 1:]
    model = LogisticRegression(C=1 / _L2, solver="newton-cholesky", tol=1e-10, max_iter=_MAX_STEPS)
    model.fit(np.concatenate([term, term]), np.repeat([1, 0], len(y)), sample_weight=np.concatenate([y, 1 - y]))
    return np.array([model.intercept_[0], model.coef_[0, 0]])


def _standard_error(design: Array, y: Array, beta: Array) -> float | None:
    """Return the standard error of sigmoid(theta): labels are degrees, so the binomial variance would be wrong."""
    if len(y) < 3:
        return None
    probs = 1 / (1 + np.exp(-design @ beta))
    bread = np.linalg.inv((design * (probs * (1 - probs))[:, None]).T @ design + np.diag([0.0, _L2]))
    scores = design * (y - probs)[:, None]
    variance = float((bread @ (scores.T @ scores) @ bread)[0, 0])
    at_zero = 1 / (1 + math.exp(-beta[0]))
    return at_zero * (1 - at_zero) * math.sqrt(variance)
