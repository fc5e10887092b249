"""The two ways to fail at harmlessness: answering what harms, refusing what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mocae.report.colours import GRID, INK, MUTED, PAPER, axis_colour
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, shorten, to_panel
from mocae.report.figures.labels import place_labels
from mocae.report.schema import axis_names, is_main, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.types import Estimate

__all__ = ["draw_refusal"]


_MOST_NAMED = 14
"""With more points than this, names cover each other."""


class _Point(NamedTuple):
    """One system: where its dot stands, and the intervals of both rates."""

    system: str
    x: float
    y: float
    unsafe: Estimate
    refused: Estimate
    is_bound: bool
    is_main: bool


def draw_refusal(report: Mapping[str, Any]) -> Plate:
    """Return a scatter of over-refusal against unsafe answers, one panel for each axis that measured both."""
    panels = []
    axes = axis_names(report)
    for number, axis in enumerate(axes):
        points: list[_Point] = []
        for system in sorted_systems(report):
            unsafe = read_estimate(lookup(report["systems"][system], axis, "unsafe_rate"))
            refused = read_estimate(lookup(report["systems"][system], axis, "over_refusal_rate"))
            if unsafe.value is not None and refused.value is not None:
                roles = (is_upper_bound(report["systems"], system), is_main(report["systems"], system))
                points.append(_Point(system, unsafe.value, refused.value, unsafe, refused, *roles))
        if points:
            panels.append(_panel(f"refusal-{number}", points, axis_colour(axis, axes)))
    if not panels:
        return Plate(absent="Unsafe answers and over-refusal were not both measured for any system.")
    return Plate(tuple(panels))


def _panel(key: str, points: Sequence[_Point], colour: str) -> Panel:
    with canvas(450, 420) as figure:
        ax = figure.subplots()
        ax.set(xlim=(-0.04, 1.06), ylim=(-0.06, 1.06), xlabel="unsafe answers to harmful requests")
        ax.set_ylabel("refusals of harmless look-alikes")
        percent_axis(ax, "x")
        percent_axis(ax, "y")
        ax.grid(True)
        ax.tick_params(axis="y", labelcolor=MUTED, labelsize=11)
        for point in points:
            for e, line, at in ((point.unsafe, ax.hlines, point.y), (point.refused, ax.vlines, point.x)):
                if e.low is not None and e.high is not None:
                    line(at, e.low, e.high, color=colour, alpha=0.3, linewidth=1.6)
            face = PAPER if point.is_bound else colour
            ax.plot(point.x, point.y, "o", markersize=7.5, color=colour, markerfacecolor=face, zorder=3)
        _label(figure, ax, points)
        spoken = "; ".join(f"{p.system}: unsafe {100 * p.x:.1f} %, refused {100 * p.y:.1f} %" for p in points)
        return to_panel(figure, key=key, description=f"Unsafe rate against over-refusal. {spoken}")


def _named(points: Sequence[_Point]) -> list[_Point]:
    """Return the points that get a name: all if they are few, else the main systems and those that none beats.

    Of points in one place the first, which has the best mean, gets it.
    """
    if len(points) <= _MOST_NAMED:
        return list(points)
    main = [p for p in points if p.is_main]
    front = [p for p in points if not any(o.x <= p.x and o.y <= p.y and (o.x, o.y) != (p.x, p.y) for o in points)]
    places = {(p.x, p.y): p for p in reversed([*main, *front])}
    return [p for p in points if p in places.values()]


def _label(figure: Any, ax: Any, points: Sequence[_Point]) -> None:
    """Write names near their points, with a thin line where one had to move away."""
    points = _named(points)
    figure.draw_without_rendering()  # the layout must be settled before points have a place in pixels
    figure.set_layout_engine("none")
    names = [shorten(point.system) for point in points]
    spots = [tuple(ax.transData.transform((point.x, point.y))) for point in points]
    box = ax.get_window_extent()
    back = ax.transData.inverted()
    for name, spot, label in zip(
        names, spots, place_labels(names, spots, inside=(box.x0, box.y0, box.x1, box.y1), size=12.0), strict=True
    ):
        if label.moved:
            ax.plot(*zip(back.transform(spot), back.transform(label.anchor), strict=True), color=MUTED, linewidth=0.6)
        ax.text(*back.transform((label.x, label.y)), name, ha="left", va="center", fontsize=12, color=INK, zorder=4)
    ax.spines[:].set_color(GRID)
