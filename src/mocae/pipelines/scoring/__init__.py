"""Metrics from files made elsewhere."""

from __future__ import annotations

from mocae.pipelines.scoring.score import FileScore, Scored, score_file, scores

__all__ = ["FileScore", "Scored", "score_file", "scores"]
