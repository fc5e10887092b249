"""Numbers as text, and the table of systems. Rates are fractions everywhere else; percent is made only here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mocae.metrics import Unit, in_table_order, metric
from mocae.report.schema import (
    axis_names,
    forgetting_tables,
    lookup,
    read_estimate,
    sorted_systems,
    upper_bounds,
)
from mocae.types import Estimate

__all__ = [
    "DASH",
    "MINUS",
    "Cell",
    "Column",
    "Row",
    "Table",
    "estimate_cell",
    "forgetting_table",
    "format_bytes",
    "format_count",
    "format_estimate",
    "format_seconds",
    "kinds_table",
    "mark_best",
    "metric_paths",
    "routing_table",
    "seconds_cell",
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

    @classmethod
    def of(
        cls, names: Sequence[str], columns: Iterable[tuple[Column, Sequence[Cell]]], *, bounds: Collection[str] = ()
    ) -> Table:
        """Return a table of whole columns, each with a cell for every name; `bounds` are upper bounds among them."""
        known = list(columns)
        rows = [tuple(cells[i] for _, cells in known) for i in range(len(names))]
        return cls(
            tuple(column for column, _ in known),
            tuple(Row(name, row, name in bounds) for name, row in zip(names, rows, strict=True)),
        )

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

    >>> format_seconds(0.034), format_seconds(7.26), format_seconds(312.0), format_seconds(2264.0)
    ('0.03 s', '7.3 s', '312 s', '38 min')
    """
    if value is None:
        return DASH
    if value >= 600:
        return f"{value / 60:.0f} min"
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def estimate_cell(estimate: Estimate, unit: Unit) -> Cell:
    """Return an estimate as a cell."""
    return Cell(_value(estimate, unit), _interval(estimate, unit), estimate.value)


def mark_best(
    cells: Sequence[Cell], names: Sequence[str], higher_is_better: bool | None, *, bounds: Collection[str] = ()
) -> list[Cell]:
    """Return the cells of a column, the best of the systems one can run marked (all of them when equal)."""
    values = [None if name in bounds else cell.value for cell, name in zip(cells, names, strict=True)]
    known = [value for value in values if value is not None]
    if higher_is_better is None or len(known) < 2:
        return list(cells)
    best = max(known) if higher_is_better else min(known)
    return [
        replace(cell, best=value is not None and abs(value - best) < 1e-9)
        for cell, value in zip(cells, values, strict=True)
    ]


def systems_table(report: Mapping[str, Any]) -> Table:
    """Return the systems, best mean first, with the mean, each axis's score and each measured rate.

    A column stands only where at least one system has a value. The best value of a column is marked; upper bounds
    take no part in that.
    """
    entries, systems = report["systems"], sorted_systems(report)
    columns = []
    for group, name, path in metric_paths(report):
        if _repeats_score(report, group, name):
            continue
        label = metric(name).label
        if name == "win_rate":
            known = {lookup(entries[system], "win_rate_against") for system in systems} - {None}
            label += "".join(f" against {whom}" for whom in sorted(known))
        columns.append(_column(entries, systems, name, path, group=group, label=label))
    return Table.of(systems, _measured(columns), bounds=upper_bounds(entries, systems))


def _column(
    entries: Mapping[str, Any], names: Sequence[str], key: str, path: Sequence[str], *, group: str = "", label: str = ""
) -> tuple[Column, list[Cell]]:
    """Return the column of a metric that lies at `path` in the entry of each name."""
    shown = metric(key)
    cells = [estimate_cell(read_estimate(lookup(entries[name], *path)), shown.unit) for name in names]
    column = Column(group, label or shown.label, shown.text, shown.arrow)
    return column, mark_best(cells, names, shown.higher_is_better, bounds=upper_bounds(entries, names))


def _measured(columns: Iterable[tuple[Column, list[Cell]]]) -> list[tuple[Column, list[Cell]]]:
    return [(column, cells) for column, cells in columns if any(cell.value is not None for cell in cells)]


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


def routing_table(report: Mapping[str, Any]) -> Table | None:
    """Return how well each router knows its experts (ECE, Brier, ...), None when no router was measured."""
    routing = report.get("routing") or {}
    systems = [name for name in sorted_systems(report) if name in routing]
    systems += [name for name in routing if name not in systems]
    shown = {"ece", "brier", "confidence", "novel_rate", "over_random", "over_best", "misrouted_rate", "regret"}
    names = in_table_order([*shown, "entropy", "largest_share"])
    columns = _measured(_column(routing, systems, name, (name,)) for name in names)
    return Table.of(systems, columns) if columns else None


def kinds_table(report: Mapping[str, Any]) -> Table | None:
    """Return the pass rate of every system on every kind of prompt, None when none was counted by kind."""
    entries, systems = report["systems"], sorted_systems(report)
    kinds = dict.fromkeys(kind for system in systems for kind in lookup(entries[system], "kinds") or ())
    columns = [
        _column(entries, systems, "pass_rate", ("kinds", kind, "pass_rate"), label=kind.replace("_", " "))
        for kind in kinds
    ]
    return Table.of(systems, columns, bounds=upper_bounds(entries, systems)) if kinds else None


def forgetting_table(report: Mapping[str, Any]) -> Table | None:
    """Return what every order of training lost of each axis, None when none was measured.

    The last two columns are the mean loss over the axes and the mean score over the axes at the end.
    """
    tables = {name: t for name, t in forgetting_tables(report).items() if lookup(t, "forgetting")}
    axes = [a for a in axis_names(report) if any(a in t["forgetting"] for t in tables.values())]
    losses = {axis: [read_estimate(t["forgetting"].get(axis)) for t in tables.values()] for axis in axes}
    ends = [[read_estimate(value) for value in (t.get("matrix") or [[]])[-1]] for t in tables.values()]
    lost = "lost by the end"
    columns: list[tuple[Column, list[Cell]]] = [
        (
            Column(lost, axis, f"Best score on {axis} at any stage minus the score at the end.", "↓"),
            [estimate_cell(loss, "points") for loss in losses[axis]],
        )
        for axis in axes
    ]
    columns.append(
        (
            Column(lost, "mean loss", "Mean of the losses over the axes.", "↓"),
            [estimate_cell(_mean(row), "points") for row in zip(*losses.values(), strict=True)],
        )
    )
    columns.append(
        (
            Column("at the end", "mean score", "Mean score over the axes after the last stage.", "↑"),
            [estimate_cell(_mean(row), "percent") for row in ends],
        )
    )
    return Table.of(list(tables), columns) if tables else None


def _mean(estimates: Iterable[Estimate]) -> Estimate:
    values = [e.value for e in estimates if e.value is not None]
    return Estimate(sum(values) / len(values) if values else None)


def updates_table(
    updates: Mapping[str, Any], names: Sequence[str], cell: Callable[[Any], Cell], *, note: str = ""
) -> Table | None:
    """Return how long each system needs to take in new verdicts and a new axis, None when nothing was timed.

    Args:
        updates: system -> "verdicts" and "axis" -> "seconds" and "cpu_seconds".
        names: systems in the order of rows; those that were not timed are left out.
        cell: prints one of these times.
        note: ends the sentence about each column.
    """
    timed = [name for name in names if updates.get(name)]
    columns = [
        (
            Column(label, clock, f"Seconds to take in {label}: {clock} time{note}.", "↓"),
            [cell(lookup(updates[name], what, key)) for name in timed],
        )
        for what, label in (("verdicts", "new verdicts"), ("axis", "a new axis"))
        for key, clock in (("seconds", "wall clock"), ("cpu_seconds", "processor"))
    ]
    return Table.of(timed, columns) if timed else None


def seconds_cell(value: Any) -> Cell:
    """Return a measured time as a cell."""
    seconds = read_estimate(value).value
    return Cell(format_seconds(seconds), "", seconds)
