"""Metrics from files made elsewhere."""

from __future__ import annotations

from mocae.pipelines.scoring.score import score_file, scores
from mocae.pipelines.scoring.scores import FileScore, Scored

__all__ = ["FileScore", "Scored", "score_file", "scores"]
