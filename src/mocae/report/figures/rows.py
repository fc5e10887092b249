"""Numbers with their intervals, a row each: systems on axes, both sides of refusing, kinds of prompt, routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.textpath import TextPath
from matplotlib.ticker import PercentFormatter

from mocae.metrics import Unit, metric
from mocae.report.colours import ACCENT, GRID, INK, MUTED, PAPER, axis_colour
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, plain, shorten, to_panel
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import DASH, format_estimate
from mocae.types import Estimate

__all__ = ["draw_kinds", "draw_refusal", "draw_routers", "draw_systems"]

_ROW = 21
_LETTERS = 13
_DRAWN = 190
"""Size of names, and room that dots and numbers have beside them, in CSS pixels."""
_MOST_KINDS = 12
"""Kinds of prompt that are drawn; those at 100 % are not, unless all are."""
_SIDES = {"unsafe_rate": "unsafe answers", "over_refusal_rate": "over-refusal"}


class _Row(NamedTuple):
    """One dot with its interval: `bound` draws it hollow, `mark` adds a short line, `note` stands behind the number."""

    name: str
    value: Estimate
    bound: bool = False
    mark: float | None = None
    note: str = ""


def draw_systems(report: Mapping[str, Any]) -> Plate:
    """Return one panel for the mean and one an axis; the rows are the systems, best mean first, in all of them."""
    axes = axis_names(report)
    wanted = [(axis, axis_colour(axis, axes), ("axis_scores", axis)) for axis in axes]
    if len(axes) > 1:  # with one axis the mean is that axis
        wanted.insert(0, ("mean of the axes", INK, ("mean_axis_score",)))  # type: ignore[arg-type]
    panels = []
    for number, (title, colour, path) in enumerate(wanted):
        rows = _of_systems(report, path)
        if any(row.value.value is not None for row in rows):
            joint = next((row.value.value for row in rows if row.name == "joint"), None)
            n = max(row.value.n for row in rows)
            panels.append(_panel(f"systems-{number}", f"{title} (n = {n})", rows, colour=colour, line=joint))
    return Plate(tuple(panels)) if panels else Plate(absent="No system has a score on any axis.")


def draw_refusal(report: Mapping[str, Any]) -> Plate:
    """Return two panels for each axis that measured both: unsafe answers and needless refusals of every system."""
    panels = []
    axes = axis_names(report)
    for number, axis in enumerate(axes):
        sides = {key: _of_systems(report, (axis, key)) for key in _SIDES}
        if all(any(row.value.value is not None for row in rows) for rows in sides.values()):
            for key, rows in sides.items():
                title = f"{_SIDES[key]} (n = {max(row.value.n for row in rows)})"
                panels.append(_panel(f"refusal-{number}-{key}", title, rows, colour=axis_colour(axis, axes)))
    absent = "Unsafe answers and over-refusal were not both measured for any system."
    return Plate(tuple(panels)) if panels else Plate(absent=absent)


def draw_routers(report: Mapping[str, Any]) -> Plate:
    """Return a panel each for misrouted share, regret and entropy; the rows are the routers, best mean first."""
    routing, systems = report.get("routing") or {}, report["systems"]
    routers = [name for name in sorted_systems(report) if name in routing and not is_upper_bound(systems, name)]
    panels = []
    for key in ("misrouted_rate", "regret", "entropy"):
        rows = [_Row(name, read_estimate(lookup(routing[name], key))) for name in routers]
        if any(row.value.value is not None for row in rows):
            unit: Unit = "number" if metric(key).unit == "number" else "percent"
            panels.append(
                _panel(f"routers-{key}", metric(key).label, rows, colour=ACCENT, unit=unit, fixed=False, width=350)
            )
    absent = "No system of this run routes by prompt, so no routing was judged."
    return Plate(tuple(panels)) if panels else Plate(absent=absent)


def draw_kinds(report: Mapping[str, Any]) -> Plate:
    """Return the pass rate by kind of prompt, lowest first, of the best system one can run, marked against the base."""
    systems = report["systems"]
    able = [s for s in sorted_systems(report) if not is_upper_bound(systems, s) and lookup(systems[s], "kinds")]
    if not able:
        return Plate(absent="The test prompts are of no named kinds.")
    best, rival = able[0], "base" if "base" in able[1:] else None
    rows = []
    for kind in systems[best]["kinds"]:
        rate = read_estimate(lookup(systems[best], "kinds", kind, "pass_rate"))
        against = read_estimate(lookup(systems.get(rival), "kinds", kind, "pass_rate")).value
        if rate.value is not None:
            note = f"  n {rate.n}" if rate.n else ""
            rows.append(_Row(str(kind).replace("_", " "), rate, mark=against, note=note))
    if not rows:
        return Plate(absent="No answer to a prompt of a named kind was scored.")
    rows.sort(key=lambda row: row.value.value or 0.0)
    shown = ([row for row in rows if (row.value.value or 0.0) < 1] or rows)[:_MOST_KINDS]
    title = best if rival is None else f"{best}, and {rival} as a line"
    if len(shown) < len(rows):
        title += f" (lowest {len(shown)} of {len(rows)})"
    return Plate((_panel("kinds", title, shown, colour=ACCENT, width=520),))


def _of_systems(report: Mapping[str, Any], path: Sequence[str]) -> list[_Row]:
    """Return a row a system, best mean first, with the number that lies at `path` of its entry."""
    systems = report["systems"]
    return [
        _Row(name, read_estimate(lookup(systems[name], *path)), is_upper_bound(systems, name))
        for name in sorted_systems(report)
    ]


def _panel(
    key: str,
    title: str,
    rows: Sequence[_Row],
    *,
    colour: str,
    unit: Unit = "percent",
    fixed: bool = True,
    line: float | None = None,
    width: int = 420,
) -> Panel:
    """Return the rows as dots with intervals, first row on top.

    Args:
        key: see `mocae.report.figures.canvas.to_panel`.
        title: stands above.
        rows: what is drawn; one without a value keeps its place.
        colour: of dots and title.
        unit: "percent" or "number".
        fixed: from 0 to 100 %; else as far as the numbers reach.
        line: where a dashed line stands.
        width: in CSS pixels; long names make it wider.
    """
    ends = [end for row in rows for end in (row.value.value, row.value.low, row.value.high) if end is not None]
    low, high = (0.0, 1.0) if fixed else (min(0.0, *ends), max(1.0 if unit == "number" else 0.05, *ends))
    span = high - low
    names = [shorten(row.name, 34) for row in rows]
    room = max((TextPath((0, 0), f"{name}.", size=_LETTERS).get_extents().width for name in names), default=0)
    with canvas(max(width, round(room) + _DRAWN), 62 + _ROW * len(rows)) as figure:
        ax = figure.subplots()
        ax.set_title(shorten(title, width // 9), color=colour)
        if line is not None:
            ax.axvline(line, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        for y, row in enumerate(rows):
            value = row.value
            ax.axhline(y, color=GRID, linewidth=0.6, zorder=0)
            number = DASH if value.value is None else _digits(value.value, unit)
            ax.text(high + 0.25 * span, y, f"{number}{row.note}", ha="right", va="center", fontsize=11.5, color=INK)
            if value.value is None:
                continue
            if value.low is not None and value.high is not None:
                ax.hlines(y, value.low, value.high, color=colour, linewidth=2.6, alpha=0.45, zorder=2)
            if row.mark is not None:
                ax.vlines(row.mark, y - 0.42, y + 0.42, color=MUTED, linewidth=2.4)
            face = PAPER if row.bound else colour
            ax.plot(value.value, y, "o", markersize=7, color=colour, markerfacecolor=face, zorder=3, clip_on=False)
        ax.set_yticks(range(len(rows)), names)
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low - 0.03 * span, high + 0.25 * span))
        if fixed:
            percent_axis(ax, "x")
        else:
            ax.locator_params(axis="x", nbins=4)
            if unit == "percent":
                ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=int(span <= 0.12), symbol="\u00a0%"))
            ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        plain(ax)
        spoken = "; ".join(f"{row.name} {format_estimate(row.value, unit)}" for row in rows)
        return to_panel(figure, key=key, description=f"{title}: {spoken}")


def _digits(value: float, unit: Unit) -> str:
    return f"{100 * value:.1f}" if unit == "percent" else f"{value:.2f}"
