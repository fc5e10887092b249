"""What a metric of a file is, and the registry of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mocae.pipelines.scoring.table import ScoreTable

__all__ = ["SCORES", "Bins", "FileScore", "Scored", "file_score", "whole"]


@dataclass(frozen=True, slots=True)
class Scored:
    """Numbers of one file.

    Attributes:
        values: name -> number; rates are fractions, None where the rows do not give it.
        n: scored rows.
        n_unscored: rows whose value is missing; in no number.
        tables: longer results, such as reliability bins.
        notes: what a reader must know.
    """

    values: Mapping[str, float | int | None]
    n: int
    n_unscored: int
    tables: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


Bins = Mapping[str, Any]
"""Arguments of calibration errors: `n_bins` and `binning`."""


@dataclass(frozen=True, slots=True)
class FileScore:
    """A metric that can be computed from a file, and the columns it reads; what `alias` calls it, it was called."""

    columns: tuple[str, ...]
    compute: Callable[[ScoreTable, Bins], Scored]
    alias: str = ""


SCORES: dict[str, FileScore] = {}
"""Metrics of ours that a file gives, by their names in `mocae.metrics.METRICS`."""

_Compute = TypeVar("_Compute", bound=Callable[[ScoreTable, Bins], Scored])


def file_score(*names: str, columns: Sequence[str], alias: str = "") -> Callable[[_Compute], _Compute]:
    """Return a decorator that makes a function compute these metrics of a file, all at once."""

    def register(compute: _Compute) -> _Compute:
        SCORES.update(dict.fromkeys(names, FileScore(tuple(columns), compute, alias)))
        return compute

    return register


def whole(*columns: Sequence[Any]) -> tuple[list[list[Any]], int]:
    """Return the columns of the rows in which no value is missing, and how many rows were left out."""
    rows = [row for row in zip(*columns, strict=True) if not any(value is None for value in row)]
    return [[row[i] for row in rows] for i in range(len(columns))], len(columns[0]) - len(rows)
