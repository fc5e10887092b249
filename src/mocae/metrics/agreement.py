"""How well two raters agree, for example a judge with human labels. Higher is better throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mocae.errors import DataError
from mocae.metrics._checks import Values, flags, same_length, vector

__all__ = ["accuracy", "auroc", "balanced_accuracy", "cohens_kappa"]

# scikit-learn is imported inside the functions: it takes a second, and listing the metrics needs none of it.


def accuracy(predicted: Sequence[Any], expected: Sequence[Any]) -> float:
    """Return the share of rows on which both say the same: in [0, 1], higher is better.

    Args:
        predicted: label of each row (text, numbers or booleans), from the rater under test.
        expected: label of each row, from the rater taken as right.

    Raises:
        DataError: no rows, a missing label, or lengths that differ.

    >>> accuracy(["safe", "unsafe", "safe", "safe"], ["safe", "unsafe", "unsafe", "safe"])
    0.75
    """
    from sklearn.metrics import accuracy_score

    _check_labels(predicted, expected)
    return float(accuracy_score(expected, predicted))


def balanced_accuracy(predicted: Sequence[Any], expected: Sequence[Any]) -> float:
    """Return the mean over the expected labels of the share found: in [0, 1], higher is better.

    A rater that always says the same reaches 1 / (number of expected labels), however rare the others are.

    The arguments are those of `accuracy`.

    Raises:
        DataError: see `accuracy`.

    Reference:
        Brodersen et al., *The balanced accuracy and its posterior distribution*, 2010.

    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 1, 1])
    0.75
    """
    from sklearn.metrics import recall_score

    _check_labels(predicted, expected)
    # recall over the expected labels: balanced_accuracy_score is the same number but warns of unexpected predictions
    return float(recall_score(expected, predicted, labels=np.unique(np.asarray(expected)), average="macro"))


def cohens_kappa(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Return the agreement beyond chance: 1 perfect, 0 as by chance, down to -1. Higher is better.

    Args:
        first: label of each row, from one rater.
        second: label of each row, from the other; the order of the raters does not matter.

    Raises:
        DataError: see `accuracy`; or both raters gave every row one and the same label, where chance agreement is 1
            and kappa is not defined.

    Reference:
        Cohen, *A coefficient of agreement for nominal scales*, 1960.

    >>> cohens_kappa([1, 1, 0, 0], [1, 0, 0, 0])
    0.5
    """
    from sklearn.metrics import cohen_kappa_score

    _check_labels(first, second)
    used = np.unique(np.concatenate([np.asarray(first), np.asarray(second)]))
    if used.size == 1:
        raise DataError(
            f"both raters gave all {len(first)} rows the label {str(used[0])!r}; kappa needs a second label"
        )
    return float(cohen_kappa_score(first, second))


def auroc(scores: Values, outcomes: Values) -> float:
    """Return the probability that a random positive row scores above a random negative one. Higher is better.

    In [0, 1]; a tie counts one half, 0.5 is chance.

    Args:
        scores: shape (N,), any finite numbers.
        outcomes: shape (N,), True or 1 for positive rows.

    Raises:
        DataError: no rows, a missing value, lengths that differ, or rows of one kind only.

    Reference:
        Hanley and McNeil, *The meaning and use of the area under a ROC curve*, 1982.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    from sklearn.metrics import roc_auc_score

    values, positive = vector(scores, "scores"), flags(outcomes, "outcomes")
    same_length(scores=values, outcomes=positive)
    if positive.all() or not positive.any():
        raise DataError(f"all {positive.size} outcomes are {bool(positive[0])}; AUROC needs positive and negative rows")
    return float(roc_auc_score(positive, values))


def _check_labels(first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) == 0:
        raise DataError("there are no labels; at least one row is needed")
    same_length(first=first, second=second)
    for name, labels in (("first", first), ("second", second)):
        for i, label in enumerate(labels):
            if label is None or label != label:  # NaN differs from itself
                raise DataError(
                    f"the {name} rater's label {i} is {label}; remove unscored rows and report their number"
                )
    kinds = {_kind(label) for label in (*first, *second)}
    if len(kinds) > 1:  # True == 1 == 1.0 in Python, and numpy writes 1 as "1" beside words
        raise DataError(f"labels are of several kinds, {' and '.join(sorted(kinds))}; write all in one form")


def _kind(label: Any) -> str:
    if isinstance(label, bool | np.bool_):
        return "true or false"
    return "numbers" if isinstance(label, int | float | np.number) else "words"
