"""How good routing weights are, judged by outcomes: which expert's answer would have been acceptable.

`outcomes` is (N, K): True where expert k, alone, answered prompt i acceptably. `alpha` is (N, K): the weights of the
router. The top expert of a row is the one with the largest weight, the first of them on a tie. All results are per
row, so that intervals can resample prompts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mocae.errors import DataError
from mocae.metrics._checks import Array, Flags, Values, distributions, flags, fractions, matrix

__all__ = ["TopConfidence", "misrouted", "regret", "routing_entropy", "top_confidence"]


class TopConfidence(NamedTuple):
    """Weight of the top expert and whether its answer was acceptable: input for a calibration error.

    Attributes:
        confidence: shape (N,), the largest weight of each row.
        outcome: shape (N,), whether the top expert's answer was acceptable.
    """

    confidence: Array
    outcome: Flags


def misrouted(alpha: Values, outcomes: Values) -> Flags:
    """Return, shape (N,), where the top expert failed although another expert succeeded. Lower (fewer) is better.

    Args:
        alpha: shape (N, K), any finite weights.
        outcomes: shape (N, K), True or 1 where the expert's answer is acceptable.

    Raises:
        DataError: no rows, a missing value, an outcome other than 0 and 1, or shapes that differ.

    >>> misrouted([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], [[0, 1], [1, 0], [0, 0]]).tolist()
    [True, False, False]
    """
    weights, acceptable = _pair(matrix(alpha, "alpha"), outcomes)
    result: Flags = acceptable.any(axis=1) & ~_of_top(weights, acceptable)
    return result


def regret(outcomes: Values, system_outcomes: Values) -> Array:
    """Return, shape (N,), the best single expert's outcome minus the system's own. Lower is better.

    1: an expert succeeds where the system fails; -1: the mixture succeeds where every expert alone fails; its mean is
    the distance of the system from the oracle that picks an expert for each prompt.

    Args:
        outcomes: shape (N, K), in [0, 1], each expert's outcome.
        system_outcomes: shape (N,), in [0, 1], the outcome of the system's own answer.

    Raises:
        DataError: no rows, a missing value, a value outside [0, 1], or lengths that differ.

    >>> regret([[0, 1], [1, 1], [0, 0]], [0, 1, 1]).tolist()
    [1.0, 0.0, -1.0]
    """
    experts = fractions(outcomes, "outcomes", n_dims=2)
    system = fractions(system_outcomes, "system_outcomes")
    if experts.shape[0] != system.size:
        raise DataError(
            f"outcomes has {experts.shape[0]} rows, system_outcomes {system.size}; give one a prompt to each"
        )
    result: Array = experts.max(axis=1) - system
    return result


def routing_entropy(alpha: Values, *, normalised: bool = False) -> Array:
    """Return, shape (N,), the entropy of each row of weights: 0 one expert, log(K) all alike. Neither end is better.

    Args:
        alpha: shape (N, K), rows that sum to 1.
        normalised: divide by log(K), so that it lies in [0, 1]; nats otherwise. One expert alone has entropy 0.

    Raises:
        DataError: no rows, a missing or negative weight, or a row that does not sum to 1.

    >>> routing_entropy([[0.5, 0.5], [1, 0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = distributions(alpha, "alpha")
    entropy: Array = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1) + 0.0  # + 0.0: turns -0 into 0
    return entropy / np.log(p.shape[1]) if normalised and p.shape[1] > 1 else entropy


def top_confidence(alpha: Values, outcomes: Values) -> TopConfidence:
    """Return the largest weight of each row and whether that expert's answer was acceptable.

    The pair goes into `mocae.metrics.expected_calibration_error`: is the weight the probability of being right?

    Args:
        alpha: shape (N, K), in [0, 1].
        outcomes: shape (N, K), True or 1 where the expert's answer is acceptable.

    Raises:
        DataError: no rows, a missing value, a weight outside [0, 1], an outcome other than 0 and 1, or shapes that
            differ.

    >>> top_confidence([[0.75, 0.25], [0.4, 0.6]], [[1, 0], [1, 0]])
    TopConfidence(confidence=array([0.75, 0.6 ]), outcome=array([ True, False]))
    """
    weights, acceptable = _pair(fractions(alpha, "alpha", n_dims=2), outcomes)
    return TopConfidence(confidence=weights.max(axis=1), outcome=_of_top(weights, acceptable))


def _pair(weights: Array, outcomes: Values) -> tuple[Array, Flags]:
    acceptable = flags(outcomes, "outcomes", n_dims=2)
    if weights.shape != acceptable.shape:
        raise DataError(f"alpha has shape {weights.shape}, outcomes {acceptable.shape}; both must be (N, K)")
    return weights, acceptable


def _of_top(weights: Array, acceptable: Flags) -> Flags:
    top = weights.argmax(axis=1)
    result: Flags = acceptable[np.arange(top.size), top]
    return result
