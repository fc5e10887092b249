"""Metrics of probabilities with labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mocae.errors import DataError
from mocae.metrics import (
    auroc,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
    risk_coverage,
)
from mocae.pipelines.scoring.scores import Bins, Scored, file_score, whole
from mocae.pipelines.scoring.table import ScoreTable
from mocae.pipelines.scoring.values import label, number, numbers

__all__: list[str] = []


@dataclass(frozen=True, slots=True)
class _Probabilities:
    """Rows of probability and label; `probs` is (N,) for binary rows and (N, K) for classes."""

    probs: Any
    labels: Any
    n_unscored: int

    @property
    def binary(self) -> bool:
        return bool(np.ndim(self.probs) == 1)

    def top(self) -> tuple[Any, Any]:
        """Return confidence and outcome of each row: of the likeliest class where there are several."""
        if self.binary:
            return self.probs, self.labels
        probs = np.asarray(self.probs, dtype=float)
        return probs.max(1), (probs.argmax(1) == np.asarray(self.labels)).astype(int)

    def scored(
        self, values: Mapping[str, float | int | None], *notes: str, tables: Mapping[str, Any] | None = None
    ) -> Scored:
        """Return numbers of these rows."""
        return Scored(values, len(self.labels), self.n_unscored, tables or {}, list(notes))


def _probabilities(table: ScoreTable) -> _Probabilities:
    if table.has("prob") and table.has("probs"):
        raise DataError(f"{table.path}: has both 'prob' and 'probs'; keep one: a number, or a list with one a class")
    # Where neither is there the error names the column that was asked for.
    binary = not table.has("probs") and "probs" not in table.renamed
    column: list[Any] = table.column("prob", number) if binary else table.column("probs", numbers)
    (probs, labels), n_unscored = whole(column, table.column("label", label, one_form=True))
    if not probs:
        raise DataError(f"{table.path}: none of {n_unscored} rows has both a probability and a label")
    widths = set() if binary else set(map(len, probs))
    if len(widths) > 1:
        raise DataError(f"{table.path}: lists of {sorted(widths)} probabilities; every row needs one for each class")
    return _Probabilities(probs, labels, n_unscored)


@file_score("ece", "classwise_calibration_error", columns=("prob", "probs", "label"))
def _ece(table: ScoreTable, bins: Bins) -> Scored:
    rows = _probabilities(table)
    confidence, outcome = rows.top()
    values = {"expected_calibration_error": expected_calibration_error(confidence, outcome, **bins)}
    if not rows.binary:
        values["classwise_calibration_error"] = classwise_calibration_error(rows.probs, rows.labels, **bins)
    tables = {"reliability_bins": [asdict(b) for b in reliability_bins(confidence, outcome, **bins)]}
    what = "probability of label 1" if rows.binary else "probability of the likeliest class"
    return rows.scored(values, f"{bins['n_bins']} bins of equal {bins['binning']}; confidence: {what}", tables=tables)


@file_score("brier", columns=("prob", "probs", "label"))
def _brier(table: ScoreTable, _: Bins) -> Scored:
    rows = _probabilities(table)
    note = "mean of (p - y)^2, in [0, 1]" if rows.binary else "squares summed over the classes, in [0, 2]"
    return rows.scored({"brier_score": brier_score(rows.probs, rows.labels)}, note)


@file_score("negative_log_likelihood", columns=("prob", "probs", "label"), alias="nll")
def _nll(table: ScoreTable, _: Bins) -> Scored:
    rows = _probabilities(table)
    value = negative_log_likelihood(rows.probs, rows.labels)
    if np.isfinite(value):
        return rows.scored({"negative_log_likelihood": value}, "in nats a row")
    return rows.scored({"negative_log_likelihood": None}, "infinite: something happened that was said to be impossible")


@file_score("auroc", columns=("prob", "label"))
def _auroc(table: ScoreTable, _: Bins) -> Scored:
    rows = _probabilities(table)
    if not rows.binary:
        raise DataError("AUROC needs one number a row, 'prob', and labels 0 and 1; got lists of probabilities")
    return rows.scored({"auroc": auroc(rows.probs, rows.labels)})


@file_score("aurc", columns=("prob", "probs", "label"), alias="risk-coverage")
def _risk_coverage(table: ScoreTable, _: Bins) -> Scored:
    rows = _probabilities(table)
    confidence, outcome = rows.top()
    curve = risk_coverage(confidence, 1 - np.asarray(outcome, dtype=float))
    tables = {"coverage": curve.coverage.tolist(), "risk": curve.risk.tolist()}
    return rows.scored({"aurc": curve.aurc, "risk": float(curve.risk[-1])}, tables=tables)
