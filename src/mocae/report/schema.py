"""The shape of `report.json`: what must be there, and how to read what may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from mocae.errors import ArtifactError
from mocae.files import Record, check_record
from mocae.types import Estimate

__all__ = [
    "SCHEMA",
    "axis_names",
    "check_report",
    "forgetting_tables",
    "is_main",
    "is_upper_bound",
    "lookup",
    "read_estimate",
    "sorted_systems",
    "upper_bounds",
]

SCHEMA = 1

_Count = Annotated[int, Field(ge=0, le=2**53)] | None
_Share = Annotated[float, Field(ge=0, le=1)]
_Number = Any
"""An estimate or a number that may not be finite; `read_estimate` says whether it is one."""


class _Named(Record):
    name: str


class _Base(Record):
    model: str


class _Suite(Record):
    name: str
    version: int | str | None = None


class _Recipe(Record):
    name: str
    seed: int
    base: _Base
    axes: Annotated[Sequence[_Named], Field(min_length=1)]
    suite: _Suite | None = None


class _Bin(Record):
    low: _Share
    high: _Share
    n: _Count = None
    confidence: _Number = None
    accuracy: _Number = None


class _Routing(Record):
    reliability: Annotated[Sequence[_Bin], Field(max_length=1000)] | None = None
    ece: _Number = None


class _Usage(Record):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    requests: _Count = None
    cached: _Count = None
    answered: _Count = None
    cost: float | None = None


class _Quality(Record):
    n: _Count = None
    note: str | None = None


class _Judge(_Named):
    judgements: Sequence[str] | None = None
    quality: _Quality | None = None
    audit: Mapping[str, Any] | None = None
    n_verdicts: _Count = None
    n_unscored: _Count = None
    usage: _Usage | None = None
    usage_before: _Usage | None = None


class _Example(Record):
    prompt: str


class _Cost(Record):
    seconds: float | None = None


class _System(Record):
    about: str | None = None
    policy: str | None = None
    cost: _Cost | None = None


class _Counts(Record):
    skipped: _Count = None
    unscored: _Count = None


class _Forgetting(Record):
    order: Sequence[str] | None = None
    forgetting: Mapping[str, Any] | None = None
    axes: Sequence[str] | None = None
    stages: Sequence[str] | None = None
    matrix: Sequence[Sequence[_Number]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> _Forgetting:
        rows, columns = len(self.stages or ()), len(self.axes or ())
        if self.matrix is not None and (len(self.matrix) != rows or any(len(row) != columns for row in self.matrix)):
            raise ValueError(
                f"got rows of {[len(row) for row in self.matrix]} values, expected {rows} rows (stages) of {columns} "
                "(axes)"
            )
        return self


class _Collapse(Record):
    orders: Mapping[str, _Forgetting | None] | None = None


class _Headroom(Record):
    headroom: _Number = None
    oracle: _Number = None
    best: _Number = None
    best_system: str | None = None
    n_verdicts: _Count = None


class _Report(Record):
    """What every report has, and the shape of the parts that are read beside the page a run draws of its own."""

    schema_: Annotated[int, Field(alias="schema")]
    recipe: _Recipe
    systems: Annotated[Mapping[str, _System | None], Field(min_length=1)]
    routing: Annotated[Mapping[str, _Routing | None], Field(max_length=64)] | None = None
    updates: Mapping[str, Any] | None = None
    forgetting: _Forgetting | None = None
    collapse: _Collapse | None = None
    comparisons: Mapping[str, Any] | None = None
    headroom: _Headroom | None = None
    counts: _Counts | None = None
    environment: Mapping[str, Any] | None = None
    judges: Sequence[_Judge] | None = None
    constants: Sequence[Mapping[str, Any]] | None = None
    examples: Sequence[_Example] | None = None
    notes: Sequence[str] | None = None


def check_report(report: Mapping[str, Any]) -> None:
    """Return nothing when `report` can be drawn.

    Required are `schema`, `recipe` (with `name`, `seed`, `base.model`, `axes`) and `systems`; every other section
    may be absent or null.

    Raises:
        ArtifactError: another schema version, a missing key, or a section of the wrong kind.
    """
    schema = check_record(_Report, report, "report.json").schema_
    if schema != SCHEMA:
        raise ArtifactError(
            f"report.json: schema: got {schema}, this version of mocae draws {SCHEMA}; evaluate the run again to "
            "write a new report.json"
        )


def forgetting_tables(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the forgetting of every system trained axis after axis; a report that knows one order only names it so."""
    orders = lookup(report, "collapse", "orders")
    if orders:
        return dict(orders)
    first = report.get("forgetting")
    return {"sequential": first} if first else {}


def lookup(value: object, *path: str) -> Any:
    """Return what lies at `path` in nested objects, None when any part of it is absent or null.

    >>> lookup({"a": {"b": 1}}, "a", "b"), lookup({"a": None}, "a", "b")
    (1, None)
    """
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def read_estimate(value: object) -> Estimate:
    """Return the estimate in a JSON value: an object with an interval, a bare number, or null.

    Numbers that are not finite or absurdly large are read as missing: nothing can be drawn at NaN.

    Raises:
        ArtifactError: the value is neither.
    """
    if isinstance(value, Mapping):
        n = _number(value.get("n")) or 0
        return Estimate(_number(value.get("value")), _number(value.get("low")), _number(value.get("high")), n=int(n))
    return Estimate(_number(value))


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArtifactError(
            f"report.json: got {value!r} where a number, null or {{'value', 'low', 'high', 'n'}} is expected"
        )
    return float(value) if abs(value) < 2**63 else None


def axis_names(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the axes in the recipe's order; the colour of an axis is its place here."""
    return [str(axis["name"]) for axis in report["recipe"]["axes"]]


def is_upper_bound(systems: Mapping[str, Any], name: str) -> bool:
    """Return whether a system has seen the verdicts it is scored on: a ceiling to aim at, not a rival.

    Args:
        systems: the section of a report, or of one setting of an ablation.
        name: of the system.
    """
    recorded = lookup(systems, name, "upper_bound")
    return name == "oracle" if recorded is None else bool(recorded)  # reports of before did not record it


def upper_bounds(systems: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return those of the systems `names` that are upper bounds."""
    return [name for name in names if is_upper_bound(systems, name)]


def is_main(systems: Mapping[str, Any], name: str) -> bool:
    """Return whether a system is shown where there are more than fit: one called like its kind, or a bound."""
    return bool(lookup(systems, name, "plain")) or is_upper_bound(systems, name)


def sorted_systems(report: Mapping[str, Any]) -> list[str]:
    """Return the systems by falling mean over the axes, those without a mean last; ties keep their order."""

    def key(name: str) -> float:
        value = read_estimate(lookup(report["systems"][name], "mean_axis_score")).value
        return math.inf if value is None else -value

    return sorted(report["systems"], key=key)
