"""What answering took: the speed of each system as a multiple of the base model's, measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocae.report.colours import ACCENT, GRID, INK, MUTED
from mocae.report.figures.canvas import Panel, Plate, canvas, shorten, to_panel
from mocae.report.schema import lookup, read_estimate, sorted_systems

__all__ = ["draw_cost"]


def draw_cost(report: Mapping[str, Any]) -> Plate:
    """Return a panel of speeds as multiples of the base model's.

    Peak memory is not drawn: it is the high-water mark of the process, so it tells the order of the run.
    """
    systems = sorted_systems(report)
    values = {s: read_estimate(lookup(report["systems"][s], "cost", "tokens_per_second")).value for s in systems}
    reference = values.get("base")
    ratios = {s: v / reference for s, v in values.items() if v is not None and reference}
    if len(ratios) < 2:
        return Plate(absent="Speed was not measured for the base model and at least one other system.")
    title = "speed in this run, measured once (longer is faster)"
    return Plate((_panel("cost-speed", title, list(ratios), list(ratios.values())),))


def _panel(key: str, title: str, systems: Sequence[str], ratios: Sequence[float]) -> Panel:
    with canvas(420, 62 + 21 * len(systems)) as figure:
        ax = figure.subplots()
        ax.set_title(title)
        widest = max(1.0, *ratios)
        ax.barh(range(len(systems)), ratios, height=0.62, color=ACCENT, alpha=0.75)
        ax.axvline(1, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for y, ratio in enumerate(ratios):
            ax.text(widest * 1.2, y, f"{ratio:.2f}\u00d7", ha="right", va="center", fontsize=11.5, color=INK)
        ax.set_yticks(range(len(systems)), [shorten(s) for s in systems])
        ax.set(ylim=(len(systems) - 0.4, -0.6), xlim=(0, widest * 1.2))
        ax.set_xticks((0, 0.5, 1), ("0", "0.5\u00d7", "base"))
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.grid(axis="x", color=GRID)
        ax.set_axisbelow(True)
        spoken = "; ".join(f"{s} {r:.2f}" for s, r in zip(systems, ratios, strict=True))
        return to_panel(figure, key=key, description=f"{title}, base = 1. {spoken}")
