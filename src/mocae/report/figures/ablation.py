"""The figures of an ablation: means over seeds, what each part buys, and lines over a swept setting."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mocae.report.ablation.reading import PartReading, mean_of, sorted_names
from mocae.report.colours import ACCENT, GRID, INK, MUTED, PAPER
from mocae.report.figures.canvas import Plate, canvas, percent_axis, plain, shorten, to_panel, to_svg
from mocae.report.figures.forest import TONES, draw_forest
from mocae.report.figures.sweep import draw_lines, draw_sweep, sweep_panels
from mocae.report.schema import is_upper_bound, read_estimate

__all__ = ["draw_against", "draw_means", "draw_means_alone", "draw_parts", "draw_sweep", "draw_sweep_alone"]

_ROW = 21
_NOTE_WIDTH = 110
_LINE = 16
"""Letters of a line under a figure, and its height in CSS pixels."""


def draw_means(setting: Mapping[str, Any], key: str) -> Plate:
    """Return the mean of every system, best on top: a diamond, and a small dot for each seed."""
    names = sorted_names(setting)
    if all(mean_of(setting, name) is None for name in names):
        return Plate(absent="No system has a mean over the axes.")
    with canvas(720, 56 + _ROW * len(names)) as figure:
        _means(figure.subplots(), setting, names)
        spoken = "; ".join(f"{name} {100 * (mean_of(setting, name) or 0):.1f} %" for name in names)
        return Plate((to_panel(figure, key=f"{key}-means", description=f"Mean over the axes and seeds: {spoken}"),))


def draw_means_alone(summary: Mapping[str, Any]) -> str:
    """Return the same as an SVG that stands alone."""
    setting = next(iter(summary["settings"].values()))
    names = sorted_names(setting)
    notes = _notes(summary)
    with canvas(720, 80 + _ROW * len(names) + _LINE * notes.count("\n")) as figure:
        _means(figure.subplots(), setting, names)
        _write(figure, notes)
        return to_svg(figure)


def _notes(summary: Mapping[str, Any]) -> str:
    return textwrap.fill("; ".join(summary["notes"]), _NOTE_WIDTH)


def _write(figure: Figure, notes: str) -> None:
    figure.supxlabel(notes, fontsize=10, color=MUTED, x=0.01, ha="left")


def _means(ax: Axes, setting: Mapping[str, Any], names: Sequence[str]) -> None:
    for y, name in enumerate(names):
        spread = setting["systems"][name]["mean_axis_score"]
        colour = ACCENT if name.startswith("alignx") else INK
        ax.axhline(y, color=GRID, linewidth=0.6, zorder=0)
        if spread["mean"] is None:
            ax.text(1.2, y, "not measured", ha="right", va="center", fontsize=11, color=MUTED)
            continue
        ax.plot(spread["values"], [y] * len(spread["values"]), "o", color=colour, alpha=0.35, markersize=5, zorder=2)
        face = PAPER if is_upper_bound(setting["systems"], name) else colour
        ax.plot(spread["mean"], y, "D", color=colour, markerfacecolor=face, markersize=6.5, zorder=3, clip_on=False)
        deviation = "" if spread["std"] is None else f" \u00b1 {100 * spread['std']:.1f}"
        ax.text(1.2, y, f"{100 * spread['mean']:.1f}{deviation}", ha="right", va="center", fontsize=11, color=INK)
    joint = mean_of(setting, "joint")
    if joint is not None:
        ax.axvline(joint, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    ax.set_yticks(range(len(names)), [shorten(name, 40) for name in names], fontsize=11)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 1.2))
    percent_axis(ax, "x")
    plain(ax)


def draw_parts(readings: Sequence[PartReading], key: str) -> Plate:
    """Return parent minus variant for every part, with its interval; right of zero the parent is better."""
    parts = [part for part in readings if part.difference.value is not None]
    if not parts:
        return Plate(absent="No system of this recipe is another one with a setting changed.")
    rows = [(part.system, part.difference, part.by_seed, TONES[part.tone]) for part in parts]
    description = "Parent minus variant, in points. " + "; ".join(_spoken(part) for part in parts)
    unit = "\u2190 changed system better \u00b7 points \u00b7 unchanged system better \u2192"
    return Plate((draw_forest(rows, f"{key}-parts", description, unit=unit),))


def _spoken(part: PartReading) -> str:
    return f"{part.parent} minus {part.system}: {100 * (part.difference.value or 0):+.1f}"


def draw_against(setting: Mapping[str, Any], rival: str, key: str) -> Plate:
    """Return every system minus `rival`, best on top, with intervals."""
    found = setting["differences"].get(rival) or {}
    rows = []
    for name in sorted_names(setting):
        difference = read_estimate(found.get(name))
        if difference.value is not None:
            tone = "good" if (difference.low or 0) > 0 else "bad" if (difference.high or 0) < 0 else "open"
            rows.append((name, difference, tuple(found[name].get("by_seed") or ()), TONES[tone]))
    if not rows:
        return Plate(absent=f"{rival} is not among the systems.")
    spoken = "; ".join(f"{name} {100 * (d.value or 0):+.1f}" for name, d, _, _ in rows)
    return Plate((draw_forest(rows, f"{key}-against-{rival}", f"Minus {rival}, in points. {spoken}"),))


def draw_sweep_alone(summary: Mapping[str, Any]) -> str:
    """Return the lines over the swept setting as an SVG that stands alone, one panel for each other setting."""
    panels = sweep_panels(summary)
    notes = _notes(summary)
    with canvas(720, 40 + 330 * len(panels) + _LINE * notes.count("\n")) as figure:
        for ax, panel in zip(_column(figure, len(panels)), panels, strict=True):
            draw_lines(ax, panel)
        _write(figure, notes)
        return to_svg(figure)


def _column(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(n, 1, squeeze=False)[:, 0])
