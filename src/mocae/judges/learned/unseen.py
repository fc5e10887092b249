"""How well a judge reads models it has not learned from: every model is left out in turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mocae.data import hash_fraction
from mocae.judges.base import JudgeQuality
from mocae.judges.learned.design import Design, LabelledAnswer

__all__ = ["FEWEST", "UnseenModel", "by_model", "leave_models_out"]

_FOLDS = 4
"""Parts of the prompts that are left out in turn together with a model."""
FEWEST = 5
"""Answers of a label under which a rate says nothing: such a model is learned from only."""
_Z = 1.959964
"""Quantile of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class UnseenModel:
    """A judge's agreement with the labels of one model's answers; rates in [0, 1].

    Attributes:
        model: whose answers.
        n: labelled answers.
        n_yes: how many of them the judgement holds for.
        balanced_accuracy: of a judge that learned neither from the model nor from the prompts.
        low: lower end of its 95 % interval.
        high: upper end.
        auroc: likewise.
        balanced_accuracy_prompts_seen: of a judge that learned from other models' answers to the same prompts as well;
            None where that was not measured.
        learned_from: models whose answers taught that judge; "unnamed" for rows without a model.
    """

    model: str
    n: int
    n_yes: int
    balanced_accuracy: float
    low: float
    high: float
    auroc: float | None
    balanced_accuracy_prompts_seen: float | None
    learned_from: tuple[str, ...]

    def __str__(self) -> str:
        ranked = "" if self.auroc is None else f", AUROC {self.auroc:.3f}"
        seen = self.balanced_accuracy_prompts_seen
        return (
            f"{self.model}: balanced accuracy {self.balanced_accuracy:.3f} [{self.low:.3f}, {self.high:.3f}]{ranked} "
            f"on {self.n} answers, {self.n_yes} of them yes" + ("" if seen is None else f"; prompts seen: {seen:.3f}")
        )


def by_model(
    scores: Sequence[float],
    rows: Sequence[LabelledAnswer],
    *,
    prompts_seen: Sequence[float] | None = None,
    learned_from: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[UnseenModel, ...]:
    """Return the agreement of scores with labels for each model that has rows of both labels.

    Args:
        scores: one a row, at least one half meaning yes.
        rows: labelled answers.
        prompts_seen: scores of a judge that has seen the prompts.
        learned_from: model -> those that taught its judge.
    """
    measured = []
    for model, indices in _measurable(rows).items():
        labels = [rows[i].holds for i in indices]
        quality = JudgeQuality.measure([scores[i] for i in indices], labels, note=model)
        low, high = _interval([scores[i] >= 0.5 for i in indices], labels)
        seen = prompts_seen and JudgeQuality.measure([prompts_seen[i] for i in indices], labels, note=model)
        measured.append(
            UnseenModel(
                model,
                quality.n,
                sum(labels),
                quality.balanced_accuracy,
                low,
                high,
                quality.auroc,
                seen.balanced_accuracy if seen else None,
                (learned_from or {}).get(model, ()),
            )
        )
    return tuple(measured)


def leave_models_out(design: Design, rows: Sequence[LabelledAnswer], *, seed: int = 0) -> tuple[UnseenModel, ...]:
    """Return how well the design judges each model of the rows when it has not learned from it; () for one model.

    Its prompts are left out as well, a quarter at a time: another model's answer to a prompt says much about it. Words
    are counted once over all rows without their labels; everything that sees a label is fitted anew.

    Args:
        design: what the classifier looks at.
        rows: labelled answers; those without a model are learned from only.
        seed: of the quarters.
    """
    measured = _measurable(rows)
    models = [_plain(row.model) for row in rows]
    if not measured or len(set(models)) < 2:
        return ()
    varied = design.varied(rows) if design.varied is not None else []
    features = design.fitted_features([*rows, *(one.row for one in varied)])[1]
    labels = np.array([row.holds for row in [*rows, *(one.row for one in varied)]])
    part = np.array([int(_FOLDS * hash_fraction(f"{seed} unseen\n{row.prompt.strip()}")) for row in rows])
    own = np.arange(len(rows))
    unseen, seen, teachers = np.full(len(rows), np.nan), np.full(len(rows), np.nan), {}

    def predict(usable: npt.NDArray[np.bool_], judged: npt.NDArray[np.intp]) -> Any:
        learned = np.r_[own[usable], [len(rows) + i for i, one in enumerate(varied) if usable[list(one.parents)].all()]]
        learned = learned.astype(np.intp)
        probs = design.regression().fit(features[learned], labels[learned]).predict_proba(features[judged])[:, 1]
        return design.scores(probs, [rows[i].answer for i in judged])

    for model, indices in measured.items():
        others = np.array([name != _plain(model) for name in models])
        if len(set(labels[own[others]])) < 2:
            continue
        teachers[model] = tuple(
            sorted({row.model or "unnamed" for row, other in zip(rows, others, strict=True) if other})
        )
        answers = np.array(indices)
        seen[answers] = predict(others, answers)
        for fold in range(_FOLDS):
            judged = answers[part[answers] == fold]
            if len(judged):
                unseen[judged] = predict(others & (part != fold), judged)
    kept = [i for i in range(len(rows)) if not np.isnan(unseen[i])]
    return by_model(
        [float(unseen[i]) for i in kept],
        [rows[i] for i in kept],
        prompts_seen=[float(seen[i]) for i in kept],
        learned_from=teachers,
    )


def _measurable(rows: Sequence[LabelledAnswer]) -> dict[str, list[int]]:
    """Return the rows of each named model that has enough of both labels."""
    of: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.model is not None:
            of.setdefault(row.model, []).append(i)
    yes = {model: sum(rows[i].holds for i in indices) for model, indices in of.items()}
    return {model: rows_of for model, rows_of in of.items() if FEWEST <= yes[model] <= len(rows_of) - FEWEST}


def _plain(model: str | None) -> str | None:
    """Return a model's name without case and marks: one model under two spellings is one model."""
    return None if model is None else "".join(c for c in model.casefold() if c.isalnum())


def _interval(predictions: Sequence[bool], labels: Sequence[bool]) -> tuple[float, float]:
    """Return the 95 % interval of the balanced accuracy: Wilson's of the two rates, put together (MOVER).

    Reference:
        Newcombe, Statistics in Medicine 17 (1998) 873, method 10.
    """
    value, below, above = 0.0, 0.0, 0.0
    for label in (True, False):
        right = [one is label for one, other in zip(predictions, labels, strict=True) if other is label]
        n, rate = len(right), sum(right) / len(right)
        middle = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
        value += rate / 2
        below += (rate - middle + half) ** 2
        above += (middle + half - rate) ** 2
    return value - math.sqrt(below) / 2, value + math.sqrt(above) / 2
