"""Whom a router asks: mean weight of each expert by kind of prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mocae.report.colours import GRID, PAPER, axis_colour
from mocae.report.conclusions import whole
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, shorten, to_panel
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems

__all__ = ["draw_routing"]

_NONE = "No routing weights were collected by kind of prompt."
_LEAST_LABELLED = 0.12  # a narrower piece of bar has no room for its number


def draw_routing(report: Mapping[str, Any]) -> Plate:
    """Return one panel a router; a bar a kind of prompt, stacked from the mean weights of the experts.

    A kind that goes to one expert whole has no bar: `mocae.report.conclusions.whom` says so in words.
    """
    routing = report.get("routing") or {}
    panels = []
    for number, system in enumerate(name for name in sorted_systems(report) if name in routing):
        by_kind = lookup(routing[system], "weights_by_kind") or {}
        if by_kind := {kind: weights for kind, weights in by_kind.items() if not whole(weights)}:
            title = shorten(system) + (" (upper bound)" if is_upper_bound(report["systems"], system) else "")
            panels.append(_panel(f"routing-{number}", title, by_kind, axis_names(report)))
    if not panels:
        return Plate(absent="No kind of prompt is shared by several experts." if routing else _NONE)
    return Plate(tuple(panels))


def _panel(key: str, title: str, by_kind: Mapping[str, Mapping[str, Any]], axes: Sequence[str]) -> Panel:
    kinds = list(by_kind)
    weights = {k: {a: read_estimate(w).value or 0.0 for a, w in by_kind[k].items()} for k in kinds}
    with canvas(330, 58 + 27 * len(kinds)) as figure:
        ax = figure.subplots()
        ax.set_title(title)
        ends = [_bar(ax, y, weights[kind], axes) for y, kind in enumerate(kinds)]
        low, high = min(0.0, *(end[0] for end in ends)), max(1.0, *(end[1] for end in ends))
        ax.set(xlim=(low, high), ylim=(len(kinds) - 0.45, -0.55))
        ax.set_yticks(range(len(kinds)), [shorten(kind.replace("_", " ")) for kind in kinds])
        if low == 0.0 and high < 1.001:  # a sum of shares may miss 1 by a rounding error
            percent_axis(ax, "x", (0.0, 0.5, 1.0))
        ax.tick_params(length=0)
        ax.spines[["left", "bottom"]].set_visible(False)
        spoken = "; ".join(f"{k}: " + ", ".join(f"{a} {w:.2f}" for a, w in weights[k].items()) for k in kinds)
        return to_panel(figure, key=key, description=f"Mean weights of {title}. {spoken}")


def _bar(ax: Any, y: int, weights: Mapping[str, float], axes: Sequence[str]) -> tuple[float, float]:
    """Draw one stacked bar, negative weights to the left of zero, and return where it ends on both sides."""
    ax.barh(y, 1, height=0.72, color=GRID, alpha=0.4)
    left = right = 0.0
    for axis, weight in weights.items():
        start = right if weight >= 0 else left
        ax.barh(y, weight, left=start, height=0.72, color=axis_colour(axis, axes))
        if abs(weight) >= _LEAST_LABELLED:
            ax.text(start + weight / 2, y, f"{100 * weight:.0f}", ha="center", va="center", color=PAPER, fontsize=10.5)
        right += max(weight, 0.0)
        left += min(weight, 0.0)
    return left, right
