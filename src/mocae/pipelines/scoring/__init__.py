"""Metrics from files made elsewhere."""

from __future__ import annotations

from mocae.pipelines.scoring.score import score_file, scores
from mocae.pipelines.scoring.scores import FileScore, Scored
from mocae.pipelines.scoring.table import keep_rows

__all__ = ["FileScore", "Scored", "keep_rows", "score_file", "scores"]
