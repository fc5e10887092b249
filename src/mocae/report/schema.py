"""The shape of `report.json`: what must be there, and how to read what may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mocae.errors import ArtifactError
from mocae.types import Estimate

__all__ = [
    "MAIN_SYSTEMS",
    "SCHEMA",
    "axis_names",
    "check_report",
    "forgetting_tables",
    "is_upper_bound",
    "lookup",
    "read_estimate",
    "sorted_systems",
]

SCHEMA = 1

MAIN_SYSTEMS = ("alignx", "joint", "joint_outcomes", "trinityx", "linear", "sequential", "uniform", "base")
"""Those that are shown first where a recipe has more systems than fit; variants of them come after."""

# Optional sections and the kind of JSON value each must be when it is there and not null.
_SECTIONS: dict[str, type] = {
    "routing": Mapping,
    "updates": Mapping,
    "forgetting": Mapping,
    "collapse": Mapping,
    "comparisons": Mapping,
    "counts": Mapping,
    "environment": Mapping,
    "judges": Sequence,
    "examples": Sequence,
    "notes": Sequence,
}


def check_report(report: Mapping[str, Any]) -> None:
    """Return nothing when `report` can be drawn.

    Required are `schema`, `recipe` (with `name`, `seed`, `base.model`, `axes`) and `systems`; every other section
    may be absent or null.

    Raises:
        ArtifactError: another schema version, a missing key, or a section of the wrong kind.
    """
    if report.get("schema") != SCHEMA:
        raise ArtifactError(
            f"report.json: schema: got {report.get('schema')!r}, this version of mocae draws {SCHEMA}; "
            "evaluate the run again to write a new report.json"
        )
    for path in (("recipe",), ("recipe", "name"), ("recipe", "seed"), ("recipe", "base", "model"), ("recipe", "axes")):
        if lookup(report, *path) is None:
            raise ArtifactError(f"report.json: {'.'.join(path)}: missing; needed to say what was measured")
    axes = report["recipe"]["axes"]
    if not isinstance(axes, Sequence) or not axes or any(not lookup(axis, "name") for axis in axes):
        raise ArtifactError(f"report.json: recipe.axes: got {axes!r}; a list of at least one {{'name': ...}} is needed")
    systems = report.get("systems")
    if not isinstance(systems, Mapping) or not systems:
        raise ArtifactError(f"report.json: systems: got {systems!r}; at least one measured system is needed")
    for name, kind in _SECTIONS.items():
        section = report.get(name)
        if section is not None and (not isinstance(section, kind) or isinstance(section, str)):
            expected = "an object" if kind is Mapping else "a list"
            raise ArtifactError(f"report.json: {name}: got {type(section).__name__}, expected {expected} or null")
    for section, key in (("judges", "name"), ("examples", "prompt")):
        for number, item in enumerate(report.get(section) or ()):
            if lookup(item, key) is None:
                raise ArtifactError(f"report.json: {section}[{number}]: got {item!r}; {key!r} is missing")
    for table in forgetting_tables(report).values():
        _check_forgetting(table)


def _check_forgetting(forgetting: Mapping[str, Any] | None) -> None:
    """Refuse a matrix that does not have one row a stage and one column an axis."""
    if not forgetting or forgetting.get("matrix") is None:
        return
    rows = len(forgetting.get("stages") or ())
    columns = len(forgetting.get("axes") or ())
    matrix = forgetting["matrix"]
    if len(matrix) != rows or any(len(row) != columns for row in matrix):
        raise ArtifactError(
            f"report.json: forgetting.matrix: got rows of {[len(row) for row in matrix]} values, "
            f"expected {rows} rows (stages) of {columns} (axes)"
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

    Numbers that are not finite are read as missing: nothing can be drawn at NaN.

    Raises:
        ArtifactError: the value is neither.
    """
    if isinstance(value, Mapping):
        n = value.get("n")
        return Estimate(
            _number(value.get("value")), _number(value.get("low")), _number(value.get("high")), n=int(n or 0)
        )
    return Estimate(_number(value))


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArtifactError(
            f"report.json: got {value!r} where a number, null or {{'value', 'low', 'high', 'n'}} is expected"
        )
    return float(value) if math.isfinite(value) else None


def axis_names(report: Mapping[str, Any]) -> list[str]:
    """Return the names of the axes in the recipe's order; the colour of an axis is its place here."""
    return [str(axis["name"]) for axis in report["recipe"]["axes"]]


def is_upper_bound(system: str) -> bool:
    """Return whether a system has seen the verdicts it is scored on: a ceiling to aim at, not a rival."""
    return system == "oracle"


def sorted_systems(report: Mapping[str, Any]) -> list[str]:
    """Return the systems by falling mean over the axes, those without a mean last; ties keep their order."""

    def key(name: str) -> float:
        value = read_estimate(lookup(report["systems"][name], "mean_axis_score")).value
        return math.inf if value is None else -value

    return sorted(report["systems"], key=key)
