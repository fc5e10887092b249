"""How well a policy chooses among experts, and how sure it says it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mocae.evaluation.measure import Bootstrap, axis_table, shares
from mocae.metrics import (
    Table,
    bootstrap_mean,
    bootstrap_statistic,
    bootstrap_tables,
    brier_score,
    estimate_rate,
    expected_calibration_error,
    misrouted,
    regret,
    reliability_bins,
    routing_entropy,
    top_confidence,
    widened,
)
from mocae.types import Answer, Estimate, Sample

__all__ = ["NOVEL", "headroom", "measure_routing", "measure_weights"]

NOVEL = 0.95
"""A prompt counts as novel where this share of the held-out calibration prompts is more like the others."""

_ROUTING = (
    *("ece", "brier", "confidence", "novel_rate", "over_random", "over_best", "misrouted_rate", "regret", "entropy"),
    "largest_share",
)


def measure_routing(
    samples: Sequence[Sample], experts: Mapping[str, Sequence[Sample]], *, calibrated: bool, boot: Bootstrap
) -> dict[str, Any] | None:
    """Return the entry of one policy under `routing` in `report.json`, None where no prompt has all it needs.

    Args:
        samples: judged answers of the policy, with their weights; where all say how sure they are, that is the
            confidence, else the largest weight.
        experts: judged answers of every expert alone to the same prompts; the order of weights.
        calibrated: whether weights are meant as probabilities; else ECE and Brier have no value. Entropy has none
            where the weights are no distribution.
        boot: intervals.
    """
    names = list(experts)
    outcome = {name: {s.answer.example.id: s.acceptable for s in experts[name]} for name in names}
    verdicts = [[outcome[name].get(s.answer.example.id) for name in names] for s in samples]
    rows = [
        (s.answer, float(s.acceptable), verdict)
        for s, verdict in zip(samples, verdicts, strict=True)
        if s.acceptable is not None and s.answer.weights is not None and None not in verdict
    ]
    if not rows:
        return None
    answers = [answer for answer, _, _ in rows]
    resampled: dict[str, Any] = {"groups": [answer.example.group for answer in answers], **boot.arguments()}
    weights = _weights(answers, names)
    right = np.array([verdict for _, _, verdict in rows], dtype=bool)
    own = np.array([answered for _, answered, _ in rows])
    rates = {
        "over_random": bootstrap_mean(own - right.mean(1), **resampled),
        "over_best": bootstrap_mean(own - right[:, int(right.mean(0).argmax())], **resampled),
        "misrouted_rate": estimate_rate(misrouted(weights, right).astype(float), **resampled),
        "regret": bootstrap_mean(regret(right.astype(float), own), **resampled),
        **_spread(weights, resampled),
    }
    reliability = []
    if calibrated and _are_distributions(weights):
        sure = [answer.confidence for answer in answers]
        confidence, correct = top_confidence((weights / weights.sum(1, keepdims=True)).clip(0, 1), right)
        if None not in sure:
            confidence = np.asarray(sure, dtype=float)
        outcomes = correct.astype(float)
        columns = {"confidences": confidence, "outcomes": outcomes}
        rates["ece"] = bootstrap_statistic(expected_calibration_error, columns, **resampled)
        rates["brier"] = bootstrap_statistic(brier_score, {"probs": confidence, "outcomes": outcomes}, **resampled)
        rates["confidence"] = bootstrap_mean(confidence, **resampled)
        reliability = [asdict(b) for b in reliability_bins(confidence, correct)]
    novelty = [answer.novelty for answer in answers]
    if None not in novelty:
        rates["novel_rate"] = estimate_rate((np.asarray(novelty) > NOVEL).astype(float), **resampled)
    return _routing_entry(rates, reliability, samples, names)


def measure_weights(samples: Sequence[Sample], names: Sequence[str], *, boot: Bootstrap) -> dict[str, Any] | None:
    """Return the entry under `routing` of a system whose experts are not those of the bank, None without weights.

    How its weights are spread can be said; whom it should have asked cannot, as its experts were not asked alone.

    Args:
        samples: judged answers, with their weights.
        names: of the experts; the order of weights.
        boot: intervals.
    """
    answers = [s.answer for s in samples if s.answer.weights is not None]
    if not answers:
        return None
    resampled = {"groups": [answer.example.group for answer in answers], **boot.arguments()}
    return _routing_entry(_spread(_weights(answers, names), resampled), [], samples, names)


def headroom(experts: Mapping[str, Sequence[Sample]], axes: Sequence[str], *, boot: Bootstrap) -> dict[str, Any] | None:
    """Return what a choice among experts can win: `headroom` in `report.json`, None where no prompt has all verdicts.

    The oracle of a prompt is acceptable where at least one expert is. `headroom` is its mean score minus that of the
    best single expert, which every resample of prompts chooses anew; probes and axes weigh as in `mean_axis_score`.

    Args:
        experts: name -> judged answers of one expert alone to calibration prompts.
        axes: names.
        boot: intervals; groups of prompts stay together.
    """
    judged = {name: axis_table(samples, axes) for name, samples in experts.items()}
    kinds: dict[tuple[str, str], Table] = {}
    for key in sorted({key for table in judged.values() for key in table}):
        rows = [table.get(key, {}) for table in judged.values()]
        ids = [i for i in rows[0] if all(i in row for row in rows)]
        if ids:
            columns = {f"{len(kinds)}.{k}": [row[i][0] for i in ids] for k, row in enumerate(rows)}
            kinds[key] = Table(columns, [rows[0][i][1] for i in ids])
    if not kinds:
        return None
    share, names = shares(kinds), list(judged)

    def means(**columns: Any) -> NDArray[np.float64]:
        scores = np.zeros(1 + len(names))  # of the oracle, then of every expert
        for i, weight in enumerate(share):
            answers = np.stack([columns[f"{i}.{k}"] for k in range(len(names))])
            scores += weight * np.vstack([answers.max(0), answers]).mean(1)
        return scores

    def won(**columns: Any) -> float:
        scores = means(**columns)
        return float(scores[0] - scores[1:].max())

    oracle, *alone = means(**{k: v for table in kinds.values() for k, v in table.columns.items()}).tolist()
    best = int(np.argmax(alone))
    parts = []
    for i, (weight, table) in enumerate(zip(share, kinds.values(), strict=True)):
        gains = np.max(list(table.columns.values()), axis=0) - np.asarray(table.columns[f"{i}.{best}"])
        parts.append((weight, gains, table.groups))
    estimate = bootstrap_tables(won, list(kinds.values()), **boot.arguments())
    estimate = widened(estimate, parts, span=(0.0, 1.0), confidence=boot.confidence)
    return {"headroom": asdict(estimate), "oracle": oracle, "best": alone[best], "best_system": names[best]}


def _routing_entry(
    rates: Mapping[str, Estimate], reliability: Sequence[Any], samples: Sequence[Sample], names: Sequence[str]
) -> dict[str, Any]:
    entry: dict[str, Any] = {name: asdict(rates.get(name, Estimate(None))) for name in _ROUTING}
    return entry | {"reliability": reliability, "weights_by_kind": _weights_by_kind(samples, names)}


def _weights(answers: Sequence[Answer], names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[(answer.weights or {})[name] for name in names] for answer in answers], dtype=float)


def _are_distributions(weights: NDArray[np.float64]) -> bool:
    return bool((weights >= 0).all() and np.allclose(weights.sum(1), 1, atol=1e-3))


def _spread(weights: NDArray[np.float64], resampled: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return how weights (N, K) are spread: over the experts of a prompt, and over the prompts of the most used one."""
    if not _are_distributions(weights):
        return {}
    weights = weights / weights.sum(1, keepdims=True)
    most = int(weights.mean(0).argmax())
    return {
        "entropy": bootstrap_mean(routing_entropy(weights, normalised=True), **resampled),
        "largest_share": bootstrap_mean(weights[:, most], **resampled),
    }


def _weights_by_kind(samples: Sequence[Sample], experts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the mean weight of each expert by kind of question, or by probe where kinds are many."""
    sums: dict[str, list[np.ndarray[Any, Any]]] = {}
    for sample in samples:
        example = sample.answer.example
        if sample.answer.weights is not None:
            name = example.kind if example.probe == "question" and example.kind else example.probe
            sums.setdefault(name, []).append(np.array([sample.answer.weights[e] for e in experts]))
    means = {name: np.mean(rows, axis=0) for name, rows in sorted(sums.items())}
    return {name: {e: round(float(w), 4) for e, w in zip(experts, row, strict=True)} for name, row in means.items()}
