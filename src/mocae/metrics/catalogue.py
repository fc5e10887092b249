"""What each metric is called, means, and which way is better: the list behind `mocae ls metrics`."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METRICS", "MetricInfo"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One line about one metric.

    Attributes:
        name: of the function that computes it, or of the field of that function's result.
        description: one line.
        higher_is_better: True, False, or None for a number that only describes.
        unit: "fraction", "nats", "radians" or "score".
        reference: the paper or benchmark it comes from.
    """

    name: str
    description: str
    higher_is_better: bool | None
    unit: str
    reference: str


_PAPERS = "arXiv:2602.07381, arXiv:2509.08486"

METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("win_rate", "prompts on which the system beats its reference (WR)", True, "fraction", "AlpacaEval"),
        MetricInfo(
            "length_controlled_win_rate", "win rate predicted at equal length", True, "fraction", "arXiv:2404.04475"
        ),
        MetricInfo("unsafe_rate", "answers judged unsafe (the papers' SS)", False, "fraction", "arXiv:2307.04657"),
        MetricInfo("truthful_informative", "truthful share x informative share (TI)", True, "fraction", _PAPERS),
        MetricInfo(
            "truthful_and_informative", "answers both truthful and informative", True, "fraction", "arXiv:2109.07958"
        ),
        MetricInfo("average_alignment_score", "(WR + TI - SS) / 3, at most 2/3 (Avg)", True, "score", _PAPERS),
        MetricInfo("over_refusal", "safe prompts refused, wholly or in part", False, "fraction", "arXiv:2308.01263"),
        MetricInfo("mc0", "best true answer above the best false one", True, "fraction", "TruthfulQA, 2025 release"),
        MetricInfo("mc1", "best true answer above every false one", True, "fraction", "arXiv:2109.07958"),
        MetricInfo("mc2", "normalised probability of the true answers", True, "fraction", "arXiv:2109.07958"),
        MetricInfo(
            "expected_calibration_error", "gap between confidence and accuracy", False, "fraction", "arXiv:1706.04599"
        ),
        MetricInfo(
            "classwise_calibration_error", "that gap, averaged over classes", False, "fraction", "arXiv:1910.12656"
        ),
        MetricInfo(
            "brier_score", "squared error of probabilities; summed over classes: [0, 2]", False, "score", "Brier 1950"
        ),
        MetricInfo("negative_log_likelihood", "-log probability of what happened", False, "nats", "Good 1952"),
        MetricInfo("aurc", "area under the risk-coverage curve", False, "score", "arXiv:1805.08206"),
        MetricInfo("accuracy", "rows on which judge and label agree", True, "fraction", "none"),
        MetricInfo("balanced_accuracy", "mean over labels of the share found", True, "fraction", "Brodersen 2010"),
        MetricInfo("cohens_kappa", "agreement beyond chance, at most 1", True, "score", "Cohen 1960"),
        MetricInfo("auroc", "positive rows score above negative ones", True, "fraction", "Hanley and McNeil 1982"),
        MetricInfo("misrouted", "top expert failed where another succeeded", False, "fraction", "mocae"),
        MetricInfo("regret", "best single expert's outcome minus the system's", False, "fraction", "mocae"),
        MetricInfo("routing_entropy", "spread of the routing weights, 0 to log K", None, "nats", "Shannon 1948"),
        MetricInfo("forgetting", "best earlier rate minus the final rate", False, "fraction", "arXiv:1801.10112"),
        MetricInfo("linear_cka", "similarity of two feature matrices", None, "score", "arXiv:1905.00414"),
        MetricInfo("principal_angles", "angles between two feature subspaces", None, "radians", "Björck, Golub 1973"),
    )
}
