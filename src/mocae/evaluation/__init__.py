"""Evaluation: systems answer, judges decide, samples become numbers."""

from __future__ import annotations

from mocae.evaluation.answering import Cost, Generation, answer_all, too_long
from mocae.evaluation.choices import score_multiple_choice
from mocae.evaluation.examining import examine
from mocae.evaluation.forgetting import forgetting
from mocae.evaluation.judging import judge_answers, kept_verdicts
from mocae.evaluation.log import AnswerLog
from mocae.evaluation.measure import (
    Bootstrap,
    difference,
    mean_score,
    measure_metric,
    measure_system,
    probes_by_axis,
)
from mocae.evaluation.over_seeds import SeedDifference, difference_over_seeds
from mocae.evaluation.records import read_samples, sample_from_json, sample_to_json, write_samples
from mocae.evaluation.reusing import Chosen, examine_chosen
from mocae.evaluation.routing import NOVEL, headroom, measure_routing, measure_weights

__all__ = [
    "NOVEL",
    "AnswerLog",
    "Bootstrap",
    "Chosen",
    "Cost",
    "Generation",
    "SeedDifference",
    "answer_all",
    "difference",
    "difference_over_seeds",
    "examine",
    "examine_chosen",
    "forgetting",
    "headroom",
    "judge_answers",
    "kept_verdicts",
    "mean_score",
    "measure_metric",
    "measure_routing",
    "measure_system",
    "measure_weights",
    "probes_by_axis",
    "read_samples",
    "sample_from_json",
    "sample_to_json",
    "score_multiple_choice",
    "too_long",
    "write_samples",
]
