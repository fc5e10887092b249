"""A made-up report with every section, for tests of what is drawn from it."""

from __future__ import annotations

from typing import Any


def estimate(value: float | None, half: float = 0.02, n: int = 100) -> dict[str, Any]:
    if value is None:
        return {"value": None, "low": None, "high": None, "n": 0}
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def difference(value: float, half: float) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 300}


def system(mean: float, axes: list[str], **scores: float) -> dict[str, Any]:
    per_axis = {axis: scores.get(axis, mean) for axis in axes}
    return {
        **{axis: {"pass_rate": estimate(score)} for axis, score in per_axis.items()},
        "mean_axis_score": estimate(mean),
        "average_alignment_score": estimate(mean / 2),
        "axis_scores": {axis: estimate(score) for axis, score in per_axis.items()},
        "kinds": {"repeat": {"pass_rate": estimate(mean)}, "look_alike": {"pass_rate": estimate(None)}},
        "cost": {
            "seconds": 12.5,
            "tokens_per_second": 1000.0 * mean,
            "peak_memory_bytes": 400_000_000,
            "parameters": 2_900_000,
            "trained_parameters": 180_000,
        },
    }


def make_report(axes: list[str]) -> dict[str, Any]:
    """A report over these axes; "harmlessness" among them gets the two rates of refusal."""
    names = {"base": 0.4, "joint": 0.85, "alignx": 0.94, "oracle": 0.98, "expert:" + axes[0]: 0.3}
    systems = {
        name: {
            **system(mean, axes),
            "about": f"what {name} is",
            "policy": name,
            "plain": True,
            "upper_bound": name == "oracle",
        }
        for name, mean in names.items()
    }
    for name, entry in systems.items():
        entry["policy"] = name
    if "harmlessness" in axes:
        rates = [(0.5, 0.1), (0.02, 0.6), (0.02, 0.2), (0.0, 0.0), (0.8, 0.0)]
        for name, (unsafe, refused) in zip(names, rates, strict=True):
            systems[name]["harmlessness"] = {"unsafe_rate": estimate(unsafe), "over_refusal_rate": estimate(refused)}
    weights = {axis: 1 / len(axes) for axis in axes}
    bins = [
        {"low": 0.0, "high": 0.5, "confidence": None, "accuracy": None, "n": 0},
        {"low": 0.5, "high": 1.0, "confidence": 0.8, "accuracy": 0.7, "n": 1234},
    ]
    stages = ["base", axes[0], *(f"+{axis}" for axis in axes[1:])]
    return {
        "schema": 1,
        "recipe": {
            "name": "tiny-run",
            "seed": 7,
            "base": {"model": "pocket"},
            "axes": [{"name": axis, "injection": f"Think of {axis}."} for axis in axes],
        },
        "systems": systems,
        "routing": {
            "alignx": {
                "ece": estimate(0.1),
                "brier": estimate(0.08),
                "misrouted_rate": estimate(0.03),
                "regret": difference(-0.01, 0.02),
                "entropy": 0.4,
                "reliability": bins,
                "weights_by_kind": {"task": weights, "harmful": weights},
            }
        },
        "forgetting": {
            "order": axes,
            "axes": axes,
            "stages": stages,
            "matrix": [[estimate(0.9 if row == 1 else 0.2) for _ in axes] for row in range(len(stages))],
            "forgetting": {axis: difference(0.7, 0.1) for axis in axes},
        },
        "comparisons": {
            "against": "joint",
            "differences": {"alignx": difference(0.09, 0.02)},
            "lead": {"system": "alignx", "over": {name: difference(0.94 - mean, 0.02) for name, mean in names.items()}},
        },
        "headroom": {
            "headroom": estimate(0.3, n=90),
            "oracle": 0.9,
            "best": 0.6,
            "best_system": "expert:" + axes[0],
            "n_verdicts": 270,
        },
        "judges": [
            {
                "name": "verifier",
                "judgements": ["correct", "unsafe"],
                "quality": {"n": 600, "accuracy": 0.99, "balanced_accuracy": 0.98, "auroc": None, "note": "looked up"},
                "n_verdicts": 900,
                "n_unscored": 3,
            },
            {"name": "words", "judgements": ["refusal"], "quality": None, "n_verdicts": 900, "n_unscored": 0},
        ],
        "examples": [
            {
                "prompt": "What is two and two?",
                "axis": axes[0],
                "probe": "task",
                "answers": {
                    "base": {"text": "five", "weights": None, "acceptable": False},
                    "alignx": {"text": "four", "weights": weights, "acceptable": True},
                    "oracle": {"text": "", "weights": {axes[0]: -0.5}, "acceptable": None},
                },
            }
        ],
        "counts": {"train": {axis: 2000 for axis in axes}, "skipped": 0, "unscored": 3},
        "notes": ["synthetic, tiny model"],
        "environment": {"python": "3.11", "threads": 1},
    }
