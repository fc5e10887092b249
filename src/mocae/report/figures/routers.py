"""How well each router chooses: misrouted share, regret and entropy with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import PercentFormatter

from mocae.metrics import Unit, metric
from mocae.report.colours import ACCENT, GRID, INK, MUTED
from mocae.report.figures.canvas import Panel, Plate, canvas, shorten, to_panel
from mocae.report.schema import is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import DASH, format_estimate
from mocae.types import Estimate

__all__ = ["draw_routers"]


def draw_routers(report: Mapping[str, Any]) -> Plate:
    """Return a panel for each of the three, a row a router; best mean score first, in the same order everywhere."""
    routing = report.get("routing") or {}
    systems = report["systems"]
    routers = [name for name in sorted_systems(report) if name in routing and not is_upper_bound(systems, name)]
    panels = []
    for key in ("misrouted_rate", "regret", "entropy"):
        values = [read_estimate(lookup(routing[name], key)) for name in routers]
        if any(value.value is not None for value in values):
            panels.append(_panel(key, routers, values))
    if not panels:
        return Plate(absent="No system of this run routes by prompt, so no routing was judged.")
    return Plate(tuple(panels))


def _panel(key: str, routers: Sequence[str], values: Sequence[Estimate]) -> Panel:
    number = metric(key).unit == "number"
    with canvas(350, 76 + 23 * len(routers)) as figure:
        ax = figure.subplots()
        ax.set_title(metric(key).label)
        ends = [end for e in values for end in (e.value, e.low, e.high) if end is not None]
        low, high = min(0.0, *ends), max(1.0 if number else 0.05, *ends)
        span = high - low
        ax.axvline(0, color=MUTED, linewidth=1)
        for y, (name, e) in enumerate(zip(routers, values, strict=True)):
            ax.axhline(y, color=GRID, linewidth=0.6, zorder=0)
            ax.text(high + 0.3 * span, y, _short(e, number), ha="right", va="center", fontsize=11.5, color=INK)
            if e.value is None:
                continue
            if e.low is not None and e.high is not None:
                ax.hlines(y, e.low, e.high, color=ACCENT, linewidth=2.6, alpha=0.45)
            ax.plot(e.value, y, "D" if name == "alignx" else "o", markersize=7, color=ACCENT, clip_on=False)
        ax.set_yticks(range(len(routers)), [shorten(name) for name in routers])
        ax.set(ylim=(len(routers) - 0.4, -0.6), xlim=(low - 0.03 * span, high + 0.3 * span))
        ax.locator_params(axis="x", nbins=4)
        if not number:
            ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if span > 0.12 else 1, symbol="\u00a0%"))
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        unit: Unit = "number" if number else "percent"
        spoken = "; ".join(f"{n} {format_estimate(e, unit)}" for n, e in zip(routers, values, strict=True))
        return to_panel(figure, key=f"routers-{key}", description=f"{metric(key).label}: {spoken}")


def _short(e: Estimate, number: bool) -> str:
    return DASH if e.value is None else f"{e.value:.2f}" if number else f"{100 * e.value:.1f}"
