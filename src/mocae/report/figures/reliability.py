"""Does a weight mean what it says? Confidence of a router against how often it was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocae.report.colours import ACCENT, GRID, MUTED
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, shorten, to_panel
from mocae.report.schema import lookup, read_estimate, sorted_systems
from mocae.report.tables import format_estimate
from mocae.types import Estimate

__all__ = ["draw_reliability"]


_FEWEST = 5
"""Prompts of a bin that get a dot: of fewer the share is noise."""


def draw_reliability(report: Mapping[str, Any]) -> Plate:
    """Return one panel a router: the reliability curve over the histogram of its confidences."""
    routing = report.get("routing") or {}
    panels = []
    for number, system in enumerate(name for name in sorted_systems(report) if name in routing):
        bins = [b for b in lookup(routing[system], "reliability") or () if b.get("n")]
        if bins:
            panels.append(_panel(f"reliability-{number}", system, bins, read_estimate(lookup(routing[system], "ece"))))
    if not panels:
        return Plate(absent="No router's confidences were collected, so there is no reliability to draw.")
    return Plate(tuple(panels))


def _panel(key: str, system: str, bins: Sequence[Mapping[str, Any]], ece: Estimate) -> Panel:
    with canvas(330, 370) as figure:
        curve, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        shown = format_estimate(Estimate(ece.value))
        curve.set_title(f"{shorten(system)}: ECE {shown}")
        curve.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        most = max(b["n"] for b in bins)
        x = [read_estimate(b.get("confidence")).value for b in bins]
        y = [read_estimate(b.get("accuracy")).value for b in bins]
        points = [
            (a, b, one["n"])
            for a, b, one in zip(x, y, bins, strict=True)
            if a is not None and b is not None and one["n"] >= _FEWEST
        ]
        for a, b, _ in points:
            curve.vlines(a, min(a, b), max(a, b), color=ACCENT, alpha=0.3, linewidth=4)
        curve.plot([a for a, _, _ in points], [b for _, b, _ in points], color=ACCENT, linewidth=1.3, alpha=0.8)
        # Area in proportion to the count: a bin of three prompts must not look like one of three hundred.
        curve.scatter(
            [a for a, _, _ in points], [b for _, b, _ in points], [18 + 90 * n / most for *_, n in points], ACCENT
        )
        curve.set(xlim=(-0.02, 1.02), ylim=(-0.04, 1.06), ylabel="its answer acceptable")
        curve.grid(axis="y")
        percent_axis(curve, "y")
        curve.tick_params(axis="y", labelcolor=MUTED, labelsize=11)
        _counts(histogram, bins, most)
        spoken = "; ".join(
            f"confidence {100 * a:.0f} %: {100 * b:.0f} % acceptable ({n} prompts)" for a, b, n in points
        )
        return to_panel(figure, key=key, description=f"Reliability of {system}, ECE {shown}. {spoken}")


def _counts(ax: Any, bins: Sequence[Mapping[str, Any]], most: int) -> None:
    """Draw the number of prompts in each bin, printed over its bar."""
    for one in bins:
        low, high = float(one["low"]), float(one["high"])
        ax.bar((low + high) / 2, one["n"], width=(high - low) * 0.9, color=ACCENT, alpha=0.35)
        ax.text((low + high) / 2, one["n"], _compact(one["n"]), ha="center", va="bottom", fontsize=8, color=MUTED)
    ax.set(ylim=(0, most * 1.3), xlabel="weight of the favourite (bars: prompts)", yticks=[])
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_color(GRID)
    percent_axis(ax, "x")


def _compact(n: int) -> str:
    """Return a count that fits over a narrow bar: 980, 1.2k."""
    return str(n) if n < 1000 else f"{n / 1000:.1f}k"
