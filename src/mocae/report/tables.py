"""Numbers as text, and the table of systems. Rates are fractions everywhere else; percent is made only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mocae.metrics import Unit, in_table_order, metric
from mocae.report.schema import (
    axis_names,
    forgetting_tables,
    is_upper_bound,
    lookup,
    read_estimate,
    sorted_systems,
)
from mocae.types import Estimate

__all__ = [
    "DASH",
    "MINUS",
    "Cell",
    "Column",
    "Row",
    "Table",
    "forgetting_table",
    "format_bytes",
    "format_count",
    "format_estimate",
    "format_seconds",
    "kinds_table",
    "metric_paths",
    "routing_table",
    "systems_table",
    "updates_table",
]

DASH = "\u2013"  # stands where nothing was measured
MINUS = "\u2212"  # a hyphen is too short to be seen in front of a digit


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `group` is the heading above (an axis, or ""), `arrow` is "↑", "↓" or ""."""

    group: str
    label: str
    meaning: str
    arrow: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One printed number; `value` is the fraction behind it (for sorting), None when it was not measured."""

    text: str
    interval: str
    value: float | None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One system with its cells, in the order of the table's columns."""

    name: str
    cells: tuple[Cell, ...]
    upper_bound: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows, ready to be printed."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def groups(self) -> list[tuple[str, int]]:
        """Return the headings above the columns with the number of columns under each."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def format_estimate(estimate: Estimate, unit: Unit = "percent") -> str:
    """Return the value with its interval, a dash when there is no value.

    >>> format_estimate(Estimate(0.942, 0.918, 0.961, n=500))
    '94.2 % [91.8, 96.1]'
    >>> format_estimate(Estimate(0.03, 0.01, 0.05), "difference")
    '+3.0 points [+1.0, +5.0]'
    """
    interval = _interval(estimate, unit)
    return f"{_value(estimate, unit)} {interval}" if interval else _value(estimate, unit)


def _value(estimate: Estimate, unit: Unit) -> str:
    if estimate.value is None:
        return DASH
    suffix = {"percent": " %", "points": " points", "difference": " points"}.get(unit, "")
    return _digits(estimate.value, unit) + suffix


def _interval(estimate: Estimate, unit: Unit) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{_digits(estimate.low, unit)}, {_digits(estimate.high, unit)}]"


def _digits(value: float, unit: Unit) -> str:
    text = f"{100 * value:.1f}" if unit in ("percent", "points", "difference") else f"{value:.3f}"
    if not text.strip("-0."):  # -0.0 and 0.0 are the same thing on paper
        return text.removeprefix("-")
    sign = "+" if unit == "difference" and value > 0 else ""
    return sign + text.replace("-", MINUS)


def format_count(value: int | float | None) -> str:
    """Return a whole number with thin groups of three digits, a dash for None.

    >>> format_count(980), format_count(None) == DASH
    ('980', True)
    """
    return DASH if value is None else f"{value:,.0f}".replace(",", "\u202f")


def format_bytes(value: int | float | None) -> str:
    """Return a size in the nearest decimal unit, a dash for None.

    >>> format_bytes(1_530_000_000)
    '1.53 GB'
    """
    if value is None:
        return DASH
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def format_seconds(value: float | None) -> str:
    """Return a duration with about two digits, a dash for None.

    >>> format_seconds(0.034), format_seconds(7.26), format_seconds(312)
    ('0.03 s', '7.3 s', '312 s')
    """
    if value is None:
        return DASH
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def systems_table(report: Mapping[str, Any]) -> Table:
    """Return the systems, best mean first, with the mean, each axis's score and each measured rate.

    A column stands only where at least one system has a value. The best value of a column is marked; upper bounds
    take no part in that.
    """
    systems = sorted_systems(report)
    columns = []
    for group, name, path in metric_paths(report):
        if _repeats_score(report, group, name):
            continue
        label = metric(name).label
        if name == "win_rate":
            known = {lookup(report["systems"][system], "win_rate_against") for system in systems} - {None}
            label += "".join(f" against {whom}" for whom in sorted(known))
        columns.append((group, label, name, path))
    return _table(report["systems"], systems, columns)


def _table(
    entries: Mapping[str, Any],
    systems: Sequence[str],
    columns: Sequence[tuple[str, str, str, tuple[str, ...]]],
    *,
    keep_empty: bool = False,
) -> Table:
    """Return a row a system and a column for each (group, label, metric, path in the entry) that any system has."""
    shown: list[Column] = []
    cells: list[list[Cell]] = [[] for _ in systems]
    rivals = [not is_upper_bound(system) for system in systems]
    for group, label, name, path in columns:
        estimates = [read_estimate(lookup(entries[system], *path)) for system in systems]
        if not keep_empty and all(e.value is None for e in estimates):
            continue
        shown.append(Column(group, label, metric(name).text, metric(name).arrow))
        for row, cell in zip(cells, _column(estimates, name, rivals), strict=True):
            row.append(cell)
    rows = zip(systems, cells, strict=True)
    return Table(tuple(shown), tuple(Row(name, tuple(row), is_upper_bound(name)) for name, row in rows))


def metric_paths(report: Mapping[str, Any]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (group, metric, path) of every number a system may have: axes as in the recipe, metrics as in the table.

    The group is the axis, "all axes" for the mean and "papers" for their average.
    """
    paths: list[tuple[str, str, tuple[str, ...]]] = [("all axes", "mean_axis_score", ("mean_axis_score",))]
    for axis in axis_names(report):
        paths.append((axis, "axis_score", ("axis_scores", axis)))
        names = [name for system in report["systems"].values() for name in lookup(system, axis) or ()]
        paths += [(axis, name, (axis, name)) for name in in_table_order(names)]
    return [*paths, ("papers", "average_alignment_score", ("average_alignment_score",))]


def _repeats_score(report: Mapping[str, Any], axis: str, name: str) -> bool:
    """Return whether a metric is the axis score itself, as the pass rate is where an axis has one probe.

    A rate that only happens to have the same value (0 or 1, say) is another number and stays.
    """
    return name == "pass_rate" and all(
        read_estimate(lookup(system, axis, name)).value == read_estimate(lookup(system, "axis_scores", axis)).value
        for system in report["systems"].values()
    )


def _column(estimates: Sequence[Estimate], name: str, rivals: Sequence[bool]) -> list[Cell]:
    """Return the cells of one column, the best of the rivals marked (all of them when equal)."""
    found = metric(name)
    values = [e.value for e, rival in zip(estimates, rivals, strict=True) if rival and e.value is not None]
    best = None
    if found.higher_is_better is not None and len(values) > 1:
        best = max(values) if found.higher_is_better else min(values)
    return [
        Cell(
            _value(e, found.unit),
            _interval(e, found.unit),
            e.value,
            best=rival and best is not None and e.value is not None and abs(e.value - best) < 1e-9,
        )
        for e, rival in zip(estimates, rivals, strict=True)
    ]


def routing_table(report: Mapping[str, Any]) -> Table | None:
    """Return how well each router knows its experts (ECE, Brier, ...), None when no router was measured."""
    routing = report.get("routing") or {}
    systems = [name for name in sorted_systems(report) if name in routing]
    systems += [name for name in routing if name not in systems]
    names = ("ece", "brier", "confidence", "novel_rate", "misrouted_rate", "regret", "entropy", "largest_share")
    table = _table(routing, systems, [("", metric(name).label, name, (name,)) for name in names])
    return table if table.columns else None


def kinds_table(report: Mapping[str, Any]) -> Table | None:
    """Return the pass rate of every system on every kind of prompt, None when none was counted by kind."""
    systems = sorted_systems(report)
    kinds: dict[str, None] = {}
    for system in systems:
        kinds |= dict.fromkeys(lookup(report["systems"][system], "kinds") or ())
    columns = [("", kind.replace("_", " "), "pass_rate", ("kinds", kind, "pass_rate")) for kind in kinds]
    return _table(report["systems"], systems, columns, keep_empty=True) if kinds else None


def forgetting_table(report: Mapping[str, Any]) -> Table | None:
    """Return what every order of training lost of each axis, None when none was measured.

    The last two columns are the mean loss over the axes and the mean score over the axes at the end.
    """
    tables = {name: t for name, t in forgetting_tables(report).items() if lookup(t, "forgetting")}
    if not tables:
        return None
    axes = [a for a in axis_names(report) if any(a in (t["forgetting"] or {}) for t in tables.values())]
    columns = [
        Column("lost by the end", a, f"Best score on {a} at any stage minus the score at the end.", "↓") for a in axes
    ]
    columns.append(Column("lost by the end", "mean loss", "Mean of the losses over the axes.", "↓"))
    columns.append(Column("at the end", "mean score", "Mean score over the axes after the last stage.", "↑"))
    rows = []
    for name, table in tables.items():
        losses = [read_estimate(table["forgetting"].get(axis)) for axis in axes]
        known = [loss.value for loss in losses if loss.value is not None]
        ends = [read_estimate(value).value for value in (table.get("matrix") or [[]])[-1]]
        scores = [value for value in ends if value is not None]
        cells = [Cell(_value(e, "points"), _interval(e, "points"), e.value) for e in losses]
        for values, unit in ((known, "points"), (scores, "percent")):
            mean = Estimate(sum(values) / len(values) if values else None)
            cells.append(Cell(_value(mean, "points" if unit == "points" else "percent"), "", mean.value))
        rows.append(Row(name, tuple(cells)))
    return Table(tuple(columns), tuple(rows))


def updates_table(report: Mapping[str, Any]) -> Table | None:
    """Return how long each system needs to take in new verdicts and a new axis, None when nothing was timed."""
    told = report.get("updates") or {}
    systems = [name for name in sorted_systems(report) if told.get(name)]
    if not systems:
        return None
    columns: list[Column] = []
    cells: list[list[Cell]] = [[] for _ in systems]
    for what, label in (("verdicts", "new verdicts"), ("axis", "a new axis")):
        for key, clock in (("seconds", "wall clock"), ("cpu_seconds", "processor")):
            columns.append(Column(label, clock, f"Seconds to take in {label}: {clock} time.", "↓"))
            for system, row in zip(systems, cells, strict=True):
                value = read_estimate(lookup(told[system], what, key)).value
                row.append(Cell(format_seconds(value), "", value))
    return Table(tuple(columns), tuple(Row(s, tuple(c)) for s, c in zip(systems, cells, strict=True)))
