from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_cohen_kappa, multiclass_accuracy

from mocae.errors import DataError
from mocae.metrics import accuracy, auroc, balanced_accuracy, cohens_kappa


def raters(n_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    expected = rng.integers(0, n_labels, 200)
    return np.where(rng.random(200) < 0.7, expected, rng.integers(0, n_labels, 200)), expected


def test_by_hand() -> None:
    # of 6 safe rows 5 are found, of 2 unsafe rows 1: both agree on 6 of 8
    expected = ["safe"] * 6 + ["unsafe"] * 2
    predicted = ["safe"] * 5 + ["unsafe"] * 2 + ["safe"]
    assert accuracy(predicted, expected) == 6 / 8
    assert balanced_accuracy(predicted, expected) == pytest.approx((5 / 6 + 1 / 2) / 2)
    chance = (6 * 6 + 2 * 2) / 64
    assert cohens_kappa(predicted, expected) == pytest.approx((6 / 8 - chance) / (1 - chance))


@pytest.mark.parametrize("n_labels", [2, 4])
def test_accuracies_agree_with_torchmetrics(n_labels: int) -> None:
    predicted, expected = raters(n_labels)
    tensors = torch.tensor(predicted), torch.tensor(expected)
    micro = multiclass_accuracy(*tensors, num_classes=n_labels, average="micro")
    macro = multiclass_accuracy(*tensors, num_classes=n_labels, average="macro")
    assert accuracy(predicted.tolist(), expected.tolist()) == pytest.approx(micro.item())
    assert balanced_accuracy(predicted.tolist(), expected.tolist()) == pytest.approx(macro.item())


def test_kappa_agrees_with_torchmetrics_and_is_symmetric() -> None:
    first, second = raters(2, seed=1)
    theirs = binary_cohen_kappa(torch.tensor(first), torch.tensor(second))
    assert cohens_kappa(first.tolist(), second.tolist()) == pytest.approx(theirs.item(), abs=1e-6)
    assert cohens_kappa(second.tolist(), first.tolist()) == pytest.approx(theirs.item(), abs=1e-6)
    assert cohens_kappa(["a", "b"], ["a", "b"]) == 1
    assert cohens_kappa([0, 1], [1, 0]) == -1
    assert cohens_kappa([0, 0, 0], [0, 1, 0]) == 0  # a rater that never changes agrees by chance only


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 5, 80) / 4, rng.random(80) < 0.4
    pairs = [(p > q) + (p == q) / 2 for p in scores[positive] for q in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(pairs))
    theirs = binary_auroc(torch.tensor(scores), torch.tensor(positive.astype(int)))
    assert auroc(scores, positive) == pytest.approx(theirs.item())
    assert auroc(-scores, positive) == pytest.approx(1 - np.mean(pairs))


def test_a_predicted_label_that_was_never_expected_is_a_mistake() -> None:
    assert balanced_accuracy(["a", "c", "b"], ["a", "a", "b"]) == pytest.approx((1 / 2 + 1) / 2)


def test_refusals() -> None:
    for metric in (accuracy, balanced_accuracy, cohens_kappa):
        with pytest.raises(DataError, match="there are no labels"):
            metric([], [])
        with pytest.raises(DataError, match="first has 2, second has 1"):
            metric([1, 0], [1])
        with pytest.raises(DataError, match="the second rater's label 1 is None"):
            metric(["a", "b"], ["a", None])
        with pytest.raises(DataError, match="the first rater's label 0 is nan"):
            metric([math.nan, 1.0], [1.0, 1.0])
    with pytest.raises(DataError, match=r"both raters gave all 2 rows the label .*safe"):
        cohens_kappa(["safe", "safe"], ["safe", "safe"])
    with pytest.raises(DataError, match="all 2 outcomes are True; AUROC needs"):
        auroc([0.1, 0.2], [1, 1])
    with pytest.raises(DataError, match=r"scores\[0\] = nan is missing"):
        auroc([None, 0.2], [1, 0])


@pytest.mark.parametrize(
    ("first", "second"), [([1, 0], [True, False]), ([1.0, True], [1.0, 1.0]), ([1, 0], ["1", "0"])]
)
def test_labels_of_two_types_are_refused(first: list[Any], second: list[Any]) -> None:
    for metric in (accuracy, balanced_accuracy, cohens_kappa):
        with pytest.raises(DataError, match="labels are of several kinds"):
            metric(first, second)
