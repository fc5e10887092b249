"""Which kinds of prompt go well: a bar each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mocae.report.colours import ACCENT, GRID, INK, MUTED
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, plain, shorten, to_panel
from mocae.report.schema import is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.types import Estimate

__all__ = ["draw_kinds"]

_ROW = 21
_MOST = 12
"""Bars that are drawn; kinds at 100 % are not, unless all are."""


class _Bar(NamedTuple):
    """One kind of prompt: the rate of the system that is drawn, and of the one it is set against."""

    kind: str
    rate: Estimate
    against: float | None


def draw_kinds(report: Mapping[str, Any]) -> Plate:
    """Return the pass rate by kind of prompt, lowest first, of the best system one can run, marked against the base."""
    systems = report["systems"]
    able = [s for s in sorted_systems(report) if not is_upper_bound(systems, s) and lookup(systems[s], "kinds")]
    if not able:
        return Plate(absent="The test prompts are of no named kinds.")
    best, rival = able[0], "base" if "base" in able[1:] else None
    bars = []
    for kind in report["systems"][best]["kinds"]:
        rate = read_estimate(lookup(report["systems"][best], "kinds", kind, "pass_rate"))
        if rate.value is not None:
            path = ("kinds", kind, "pass_rate")
            against = None if rival is None else read_estimate(lookup(report["systems"][rival], *path)).value
            bars.append(_Bar(str(kind), rate, against))
    if not bars:
        return Plate(absent="No answer to a prompt of a named kind was scored.")
    bars.sort(key=lambda bar: bar.rate.value or 0.0)
    shown = ([bar for bar in bars if (bar.rate.value or 0.0) < 1] or bars)[:_MOST]
    title = best if rival is None else f"{best}, and {rival} as a line"
    if len(shown) < len(bars):
        title += f" (lowest {len(shown)} of {len(bars)})"
    return Plate((_panel("kinds", title, shown),))


def _panel(key: str, title: str, bars: Sequence[_Bar]) -> Panel:
    with canvas(520, 62 + _ROW * len(bars)) as figure:
        ax = figure.subplots()
        ax.set_title(shorten(title, 60), color=INK)
        for y, (_, rate, against) in enumerate(bars):
            value = rate.value or 0.0
            ax.barh(y, value, height=0.66, color=ACCENT, alpha=0.75, linewidth=0)
            if rate.low is not None and rate.high is not None:
                ax.hlines(y, rate.low, rate.high, color=INK, linewidth=1.2)
            if against is not None:
                ax.vlines(against, y - 0.42, y + 0.42, color=MUTED, linewidth=2.4)
            n = f"  n {rate.n}" if rate.n else ""
            ax.text(1.27, y, f"{100 * value:.1f}{n}", ha="right", va="center", fontsize=11, color=INK)
        ax.axvline(1.0, color=GRID, linewidth=0.8, zorder=0)
        ax.set_yticks(range(len(bars)), [shorten(bar.kind.replace("_", " "), 34) for bar in bars], fontsize=11)
        ax.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.27))
        percent_axis(ax, "x")
        plain(ax)
        spoken = "; ".join(f"{bar.kind} {100 * (bar.rate.value or 0):.1f} %" for bar in bars)
        return to_panel(figure, key=key, description=f"Pass rate by kind of prompt, {title}. {spoken}")
