"""Every system on every axis: a dot and its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocae.report.colours import GRID, INK, MUTED, PAPER, axis_colour
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, shorten, to_panel
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import DASH, format_estimate
from mocae.types import Estimate

__all__ = ["draw_systems"]

_WIDTH, _ROW = 420, 21


def draw_systems(report: Mapping[str, Any]) -> Plate:
    """Return one panel for the mean and one an axis; the rows are the systems, best mean first, in all of them."""
    systems = sorted_systems(report)
    axes = axis_names(report)
    wanted: list[tuple[str, str, tuple[str, ...]]] = [
        (axis, axis_colour(axis, axes), ("axis_scores", axis)) for axis in axes
    ]
    if len(axes) > 1:  # with one axis the mean is that axis
        wanted.insert(0, ("mean of the axes", INK, ("mean_axis_score",)))
    panels = []
    for number, (title, colour, path) in enumerate(wanted):
        scores = [read_estimate(lookup(report["systems"][s], *path)) for s in systems]
        if any(score.value is not None for score in scores):
            bounds = [system for system in systems if is_upper_bound(report["systems"], system)]
            n = max(score.n for score in scores)
            panels.append(_panel(f"systems-{number}", f"{title} (n = {n})", colour, systems, scores, bounds))
    if not panels:
        return Plate(absent="No system has a score on any axis.")
    return Plate(tuple(panels))


def _panel(
    key: str, title: str, colour: str, systems: Sequence[str], scores: Sequence[Estimate], bounds: Sequence[str]
) -> Panel:
    with canvas(_WIDTH, 62 + _ROW * len(systems)) as figure:
        ax = figure.subplots()
        ax.set_title(shorten(title, 40), color=colour)
        joint = dict(zip(systems, scores, strict=True)).get("joint", Estimate(None)).value
        if joint is not None:
            ax.axvline(joint, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for y, (system, score) in enumerate(zip(systems, scores, strict=True)):
            ax.axhline(y, color=GRID, linewidth=0.6, zorder=0)
            ax.text(1.22, y, _short(score), ha="right", va="center", fontsize=11.5, color=INK)
            if score.value is None:
                continue
            if score.low is not None and score.high is not None:
                ax.hlines(y, score.low, score.high, color=colour, linewidth=2.6, alpha=0.45, zorder=2)
            face = PAPER if system in bounds else colour
            ax.plot(score.value, y, "o", markersize=7, color=colour, markerfacecolor=face, zorder=3, clip_on=False)
        ax.set_yticks(range(len(systems)), [shorten(s) for s in systems])
        ax.set_ylim(len(systems) - 0.4, -0.6)
        ax.set_xlim(-0.03, 1.22)
        percent_axis(ax, "x")
        ax.tick_params(axis="y", length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        spoken = "; ".join(f"{s} {format_estimate(e)}" for s, e in zip(systems, scores, strict=True))
        return to_panel(figure, key=key, description=f"{title}: {spoken}")


def _short(score: Estimate) -> str:
    return DASH if score.value is None else f"{100 * score.value:.1f}"
