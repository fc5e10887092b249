"""Verdicts on answers that somebody already has."""

from __future__ import annotations

from mocae.pipelines.answers.judged import Asked, judge_answers_of
from mocae.pipelines.answers.rows import AnswerRows, Given, read_answers

__all__ = ["AnswerRows", "Asked", "Given", "judge_answers_of", "read_answers"]
