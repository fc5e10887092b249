"""`ablation.html`: one file that holds its style and its figures and asks for nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mocae.errors import ConfigError
from mocae.metrics import metric
from mocae.report.ablation.reading import (
    PartReading,
    check_ablation,
    confidence_of,
    go,
    headline,
    mean_of,
    read_parts,
    sorted_names,
)
from mocae.report.colours import css_colours
from mocae.report.schema import axis_names, lookup, read_estimate, upper_bounds
from mocae.report.tables import (
    DASH,
    Cell,
    Column,
    Table,
    estimate_cell,
    format_seconds,
    mark_best,
    updates_table,
)
from mocae.report.templating import templates
from mocae.types import Estimate

__all__ = ["ablation_page"]


@dataclass(frozen=True, slots=True)
class _Section:
    """What the page shows of one setting."""

    name: str
    anchor: str
    go: str
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
    names = [system for system in sorted_names(setting) if mean_of(setting, system) is not None]
    updates = updates_table(setting.get("updates") or {}, names, _seconds, note=", mean over seeds")
    anchor = re.sub(r"[^A-Za-z0-9]+", "-", f"{key}-{name}").strip("-")
    return _Section(name, anchor, go(setting), plates, parts, _table(setting, summary), updates)


def _spread(value: Mapping[str, Any] | None, unit: str = "percent") -> Cell:
    mean, std = (lookup(value, part) for part in ("mean", "std"))
    if mean is None:
        return Cell(DASH, "", None)
    factor, form = (100, ".1f") if unit == "percent" else (1, ".3f")
    return Cell(f"{factor * mean:{form}}", "" if std is None else f"\u00b1 {factor * std:{form}}", mean)


def _table(setting: Mapping[str, Any], summary: Mapping[str, Any]) -> Table:
    names, entries = sorted_names(setting), setting["systems"]
    bounds = upper_bounds(entries, names)
    mean = "Mean over the axes, \u00b1 standard deviation over seeds."
    scores: list[tuple[str, str, tuple[str, ...]]] = [("mean of the axes", mean, ("mean_axis_score",))]
    scores += [(a, f"Share of acceptable answers on {a}.", ("axis_scores", a)) for a in axis_names(summary)]
    columns = [
        (
            Column("score in %", label, meaning, "\u2191"),
            mark_best([_spread(lookup(entries[name], *path)) for name in names], names, True, bounds=bounds),
        )
        for label, meaning, path in scores
    ]
    columns += [
        (
            Column("routing", m.label, m.text, m.arrow),
            [_spread(lookup(entries[name], "routing", m.name), m.unit) for name in names],
        )
        for m in map(metric, ("ece", "misrouted_rate", "entropy", "largest_share"))
    ]
    columns += [
        (
            Column("difference in points", f"minus {rival}", f"Paired difference against {rival}.", "\u2191"),
            [_points(read_estimate(differences.get(name))) for name in names],
        )
        for rival, differences in setting["differences"].items()
    ]
    return Table.of(names, columns, bounds=bounds)


def _points(estimate: Estimate) -> Cell:
    cell = estimate_cell(estimate, "difference")
    return replace(cell, text=cell.text.removesuffix(" points"))


def _seconds(spread: Mapping[str, Any] | None) -> Cell:
    mean, std = (lookup(spread, part) for part in ("mean", "std"))
    return Cell(format_seconds(mean), "" if std is None else f"\u00b1 {std:.2f}", mean)
