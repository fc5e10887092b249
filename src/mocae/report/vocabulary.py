"""The words of a report: what each number means, which way is better, and what each system is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "Metric", "Unit", "describe_system", "metric"]

Unit = Literal["percent", "points", "difference", "number"]


@dataclass(frozen=True, slots=True)
class Metric:
    """How one number is called, read and printed.

    Attributes:
        label: heading of a column.
        meaning: one plain sentence.
        higher_is_better: None where neither direction is better.
        unit: "percent" (a fraction), "points" (a distance of fractions, without sign), "difference" (points with their
            sign) or "number".
    """

    label: str
    meaning: str
    higher_is_better: bool | None
    unit: Unit = "percent"


METRICS: Mapping[str, Metric] = {
    "mean_axis_score": Metric(
        "mean of the axes",
        "Plain mean of the axis scores: every axis counts the same, however many prompts it has.",
        higher_is_better=True,
    ),
    "axis_score": Metric("score", "Share of this axis's test prompts that got an acceptable answer.", True),
    "average_alignment_score": Metric(
        "papers' average",
        "(win rate + truthful \u00d7 informative \u2212 unsafe rate) / 3, the papers' summary. It cannot "
        "exceed 66.7 % and does not see over-refusal.",
        higher_is_better=True,
    ),
    "win_rate": Metric(
        "win rate",
        "Share of tasks on which the answer beat the reference answer where a judge compares the two, else the base "
        "model's answer; a draw counts one half.",
        True,
    ),
    "pass_rate": Metric("pass rate", "Share of prompts with an acceptable answer.", True),
    "unsafe_rate": Metric("unsafe", "Share of harmful requests that got an unsafe answer.", False),
    "over_refusal_rate": Metric(
        "over-refusal", "Share of harmless look-alikes (“kill a process”) that were refused.", False
    ),
    "truthful_rate": Metric("truthful", "Share of questions whose answer states nothing false.", True),
    "informative_rate": Metric(
        "informative", "Share of questions whose answer says something; “no comment” does not.", True
    ),
    "truthful_informative": Metric(
        "truthful \u00d7 informative", "Truthful share times informative share, as the papers define it.", True
    ),
    "unanswerable_accuracy": Metric(
        "unanswerable", "SelfAware: share of questions without an answer on which it says so.", True
    ),
    "answerable_accuracy": Metric(
        "answerable", "SelfAware: share of questions with an answer on which one is given, right or wrong.", True
    ),
    "honesty_rate": Metric(
        "honest limits", "HoneSet: share of requests beyond a model's limits on which it says so.", True
    ),
    "mc1": Metric("MC1", "TruthfulQA: share of questions whose true choice is the likeliest of all choices.", True),
    "mc2": Metric("MC2", "TruthfulQA: probability on the true choices, of all choices of a question.", True),
    "ece": Metric(
        "ECE",
        "Expected calibration error: mean gap between the favourite expert's chance and how often it is right.",
        False,
    ),
    "brier": Metric(
        "Brier score", "Mean squared gap between confidence and outcome: 0 is perfect.", False, unit="number"
    ),
    "confidence": Metric(
        "confidence",
        "Mean chance given to the favourite expert: low where no expert can answer, or prompts are unlike those of "
        "calibration.",
        higher_is_better=None,
    ),
    "novel_rate": Metric(
        "novel prompts",
        "Share of test prompts less like the calibration prompts than 95 % of these are to each other: 5 % where they "
        "are of one kind. On novel prompts the confidence is lowered.",
        higher_is_better=None,
    ),
    "misrouted_rate": Metric(
        "misrouted", "Share of prompts where the favourite expert fails and another one would have passed.", False
    ),
    "regret": Metric(
        "regret",
        "How far the answers fall short of always picking the best expert; below zero: the mix beats every expert.",
        False,
        unit="points",
    ),
    "entropy": Metric(
        "entropy", "Spread of the weights: 0 when one expert has it all.", higher_is_better=None, unit="number"
    ),
    "largest_share": Metric(
        "most used expert",
        "Mean weight of the expert that gets most over all test prompts: near 100 %, the others are hardly asked.",
        higher_is_better=None,
    ),
}

_SYSTEMS: Mapping[str, str] = {
    "base": "the base model as it is, no expert",
    "joint": "one adapter tuned on the data of all axes at once: the plain rival of every mixture",
    "joint_outcome": "joint tuning that also learns from the answers the judges accepted",
    "sequential": "one adapter tuned on the axes one after the other",
    "uniform": "all experts with the same weight, whatever the prompt",
    "static": "fixed weights given by hand",
    "sum": "task arithmetic: the experts' changes added up",
    "gamma": "TrinityX's fixed importance weights, no router",
    "linear": "a router trained on which data set a prompt came from",
    "trinityx": "TrinityX: router with fixed importance weights",
    "alignx": "AlignX: router with fractal and natural calibrators",
    "oracle": "picks the best expert by the verdict itself: an upper bound, not a system one can run",
}


def metric(name: str) -> Metric:
    """Return how `name` is printed; an unknown name is shown as it is, with no direction claimed."""
    if name in METRICS:
        return METRICS[name]
    return Metric(name.replace("_", " "), "", higher_is_better=None)


def describe_system(name: str) -> str | None:
    """Return one line on what the system is, None for a name this package did not give.

    >>> describe_system("expert:honesty")
    'the expert of the axis honesty alone'
    """
    if name.startswith("expert:"):
        return f"the expert of the axis {name.removeprefix('expert:')} alone"
    return _SYSTEMS.get(name)
