"""Differences and their intervals about zero, a row each."""

from __future__ import annotations

from collections.abc import Sequence

from mocae.report.colours import AXIS_COLOURS, GRID, INK, MUTED
from mocae.report.figures.canvas import Panel, canvas, plain, shorten, to_panel
from mocae.types import Estimate

__all__ = ["TONES", "draw_forest"]

TONES = {"good": AXIS_COLOURS[2], "bad": AXIS_COLOURS[1], "open": MUTED}
"""Colours of a difference above zero, below zero, or not shown either way."""

_ROW = 21


def draw_forest(
    rows: Sequence[tuple[str, Estimate, tuple[float | None, ...], str]],
    key: str,
    description: str,
    *,
    unit: str = "points",
) -> Panel:
    """Return differences with their intervals about a line at zero, first row on top.

    Args:
        rows: name, difference (with a value), its value for each seed where there are several, and a colour.
        key: see `mocae.report.figures.canvas.to_panel`.
        description: likewise.
        unit: what stands below the axis.
    """
    ends = [end for _, e, seeds, _ in rows for end in (e.value, e.low, e.high, *seeds) if end is not None]
    low, high = min(-0.01, *ends), max(0.01, *ends)
    span = high - low
    with canvas(720, 56 + _ROW * len(rows)) as figure:
        ax = figure.subplots()
        ax.axvline(0, color=MUTED, linewidth=1.2)
        for y, (_, e, seeds, colour) in enumerate(rows):
            ax.axhline(y, color=GRID, linewidth=0.6, zorder=0)
            if e.low is not None and e.high is not None:
                ax.hlines(y, e.low, e.high, color=colour, linewidth=2.8, alpha=0.5)
            known = [seed for seed in seeds if seed is not None]
            if len(known) > 1:
                ax.plot(known, [y] * len(known), "o", color=colour, alpha=0.4, markersize=4, markeredgewidth=0)
            value = e.value or 0.0
            ax.plot(value, y, "D", color=colour, markersize=6.5, zorder=3)
            text = f"{100 * value:+.1f}".replace("-", "\u2212")
            ax.text(high + 0.14 * span, y, text, ha="right", va="center", fontsize=11, color=INK)
        ax.set_yticks(range(len(rows)), [shorten(name, 40) for name, *_ in rows], fontsize=11)
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low - 0.03 * span, high + 0.14 * span))
        ax.locator_params(axis="x", nbins=7)
        ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g}".replace("-", "\u2212").replace("+0", "0"))
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        ax.set_xlabel(unit)
        plain(ax)
        return to_panel(figure, key=key, description=description)
