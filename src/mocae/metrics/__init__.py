"""Metrics: pure functions on arrays and lists. Rates are fractions, and each metric says which way is better."""

from __future__ import annotations

from mocae.metrics.agreement import accuracy, auroc, balanced_accuracy, cohens_kappa
from mocae.metrics.alignment import (
    REFUSAL_LABELS,
    OverRefusal,
    WinRate,
    abstention_f1,
    average_alignment_score,
    over_refusal,
    truthful_and_informative,
    truthful_informative,
    unsafe_rate,
    win_rate,
    wins_from_preferences,
    wins_from_scores,
)
from mocae.metrics.calibration import (
    Binning,
    ReliabilityBin,
    RiskCoverage,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
    risk_coverage,
)
from mocae.metrics.catalogue import ARROWS, METRICS, Metric, Unit, in_table_order, metric
from mocae.metrics.collapse import (
    ForgettingMatrix,
    chance_cka,
    chance_principal_angles,
    forgetting_matrix,
    linear_cka,
    principal_angles,
)
from mocae.metrics.crossed import CrossedTable, crossed_bootstrap_mean
from mocae.metrics.intervals import (
    Table,
    bootstrap_mean,
    bootstrap_statistic,
    bootstrap_tables,
    estimate_rate,
    paired_bootstrap_difference,
    widened,
)
from mocae.metrics.length_control import LengthControlledWinRate, length_controlled_win_rate
from mocae.metrics.routing import TopConfidence, misrouted, regret, routing_entropy, top_confidence
from mocae.metrics.several import holm, p_value
from mocae.metrics.truthfulqa import MultipleChoiceScores, multiple_choice_scores

__all__ = [
    "ARROWS",
    "METRICS",
    "REFUSAL_LABELS",
    "Binning",
    "CrossedTable",
    "ForgettingMatrix",
    "LengthControlledWinRate",
    "Metric",
    "MultipleChoiceScores",
    "OverRefusal",
    "ReliabilityBin",
    "RiskCoverage",
    "Table",
    "TopConfidence",
    "Unit",
    "WinRate",
    "abstention_f1",
    "accuracy",
    "auroc",
    "average_alignment_score",
    "balanced_accuracy",
    "bootstrap_mean",
    "bootstrap_statistic",
    "bootstrap_tables",
    "brier_score",
    "chance_cka",
    "chance_principal_angles",
    "classwise_calibration_error",
    "cohens_kappa",
    "crossed_bootstrap_mean",
    "estimate_rate",
    "expected_calibration_error",
    "forgetting_matrix",
    "holm",
    "in_table_order",
    "length_controlled_win_rate",
    "linear_cka",
    "metric",
    "misrouted",
    "multiple_choice_scores",
    "negative_log_likelihood",
    "over_refusal",
    "p_value",
    "paired_bootstrap_difference",
    "principal_angles",
    "regret",
    "reliability_bins",
    "risk_coverage",
    "routing_entropy",
    "top_confidence",
    "truthful_and_informative",
    "truthful_informative",
    "unsafe_rate",
    "widened",
    "win_rate",
    "wins_from_preferences",
    "wins_from_scores",
]
