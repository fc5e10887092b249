"""`ablation.html`: one file that holds its style and its figures and asks for nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mocae.errors import ConfigError
from mocae.metrics import metric
from mocae.report.ablation.reading import (
    PartReading,
    check_ablation,
    confidence_of,
    headline,
    mean_of,
    read_parts,
    sorted_names,
)
from mocae.report.colours import css_colours
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate
from mocae.report.tables import Cell, Column, Row, Table, format_estimate, format_seconds
from mocae.report.templating import templates
from mocae.types import Estimate

__all__ = ["ablation_page"]


@dataclass(frozen=True, slots=True)
class _Section:
    """What the page shows of one setting."""

    name: str
    anchor: str
    plates: Mapping[str, Any]
    parts: Sequence[PartReading]
    table: Table
    updates: Table | None


def ablation_page(summary: Mapping[str, Any]) -> str:
    """Return the whole page for `ablation.json`; the same numbers give the same bytes.

    Raises:
        ArtifactError: another schema version, or nothing to draw.
        ConfigError: matplotlib is not installed.
    """
    check_ablation(summary)
    try:
        from mocae.report.figures.ablation import draw_sweep
    except ModuleNotFoundError as error:
        raise ConfigError(f"ablation.html: {error.name} is not installed; run: pip install 'mocae[eval]'") from error
    sections = [_section(name, i, s, summary) for i, (name, s) in enumerate(summary["settings"].items())]
    n_parts = sum(len(section.parts) for section in sections)
    return (
        templates()
        .get_template("ablation.html.j2")
        .render(
            recipe=summary["recipe"],
            headline=headline(summary),
            notes=[str(note) for note in summary.get("notes") or ()],
            seeds=summary["seeds"],
            vary=summary.get("vary") or {},
            sections=sections,
            sweep=draw_sweep(summary) if len(sections) > 1 else None,
            n_parts=n_parts,
            environment={str(k): str(v) for k, v in (summary.get("environment") or {}).items()},
            light=css_colours(dark=False),
            dark=css_colours(dark=True),
        )
    )


def _section(name: str, number: int, setting: Mapping[str, Any], summary: Mapping[str, Any]) -> _Section:
    from mocae.report.figures.ablation import draw_against, draw_means, draw_parts

    key = f"s{number}"
    parts = read_parts(setting, confidence=confidence_of(summary))
    plates: dict[str, Any] = {"means": draw_means(setting, key), "parts": draw_parts(parts, key)}
    plates["against"] = {rival: draw_against(setting, rival, key) for rival in setting["differences"]}
    anchor = re.sub(r"[^A-Za-z0-9]+", "-", f"{key}-{name}").strip("-")
    return _Section(name, anchor, plates, parts, _table(setting, summary), _updates(setting))


def _spread(value: Mapping[str, Any] | None, digits: str = "percent") -> Cell:
    mean = (value or {}).get("mean")
    if mean is None:
        return Cell("\u2013", "", None)
    std = (value or {}).get("std")
    factor, form = (100, ".1f") if digits == "percent" else (1, ".3f")
    return Cell(f"{factor * mean:{form}}", "" if std is None else f"\u00b1 {factor * std:{form}}", mean)


def _table(setting: Mapping[str, Any], summary: Mapping[str, Any]) -> Table:
    axes = axis_names(summary)
    columns = [
        Column("score in %", "mean of the axes", "Mean over the axes, \u00b1 standard deviation over seeds.", "\u2191")
    ]
    columns += [Column("score in %", axis, f"Share of acceptable answers on {axis}.", "\u2191") for axis in axes]
    routing = [metric(name) for name in ("ece", "misrouted_rate", "entropy", "largest_share")]
    columns += [Column("routing", m.label, m.text, m.arrow) for m in routing]
    for rival in setting["differences"]:
        columns.append(
            Column("difference in points", f"minus {rival}", f"Paired difference against {rival}.", "\u2191")
        )
    rows = []
    for name in sorted_names(setting):
        entry = setting["systems"][name]
        cells = [_spread(entry["mean_axis_score"]), *(_spread(entry["axis_scores"][axis]) for axis in axes)]
        cells += [_spread(lookup(entry, "routing", m.name), m.unit) for m in routing]
        for found in setting["differences"].values():
            e = read_estimate(found.get(name))
            text = format_estimate(Estimate(e.value), "difference").removesuffix(" points")
            whole = format_estimate(e, "difference")
            cells.append(Cell(text, whole[whole.index("[") :] if "[" in whole else "", e.value))
        rows.append(Row(name, tuple(cells), is_upper_bound(name)))
    return Table(tuple(columns), _with_best(rows, columns))


def _with_best(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[Row, ...]:
    """Mark the best score of each column among the systems one can run."""
    best: dict[int, float] = {}
    for i, column in enumerate(columns):
        values = [row.cells[i].value for row in rows if not row.upper_bound]
        known = [value for value in values if value is not None]
        if len(known) > 1 and column.group == "score in %":
            best[i] = max(known)
    return tuple(
        Row(
            row.name,
            tuple(
                Cell(c.text, c.interval, c.value, best=not row.upper_bound and i in best and c.value == best[i])
                for i, c in enumerate(row.cells)
            ),
            row.upper_bound,
        )
        for row in rows
    )


def _updates(setting: Mapping[str, Any]) -> Table | None:
    told = {name: entry for name, entry in (setting.get("updates") or {}).items() if entry}
    names = [name for name in sorted_names(setting) if name in told and mean_of(setting, name) is not None]
    if not names:
        return None
    columns, rows = [], []
    for label in ("new verdicts", "a new axis"):
        for word in ("wall clock", "processor"):
            columns.append(Column(label, word, f"Seconds to take in {label}: {word} time, mean over seeds.", "\u2193"))
    for name in names:
        cells = []
        for what in ("verdicts", "axis"):
            for clock in ("seconds", "cpu_seconds"):
                mean, std = (lookup(told[name], what, clock, part) for part in ("mean", "std"))
                cells.append(Cell(format_seconds(mean), "" if std is None else f"\u00b1 {std:.2f}", mean))
        rows.append(Row(name, tuple(cells)))
    return Table(tuple(columns), tuple(rows))
