"""Scores over a swept setting: where is a mixture worth it, and where is joint training as good?"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from scipy.stats import t

from mocae.report.ablation.reading import mean_of
from mocae.report.colours import AXIS_COLOURS, GRID, INK, MUTED
from mocae.report.figures.canvas import Panel, Plate, canvas, percent_axis, shorten, to_panel
from mocae.report.schema import is_main, lookup, read_estimate

__all__ = ["SweepPanel", "draw_lines", "draw_sweep", "sweep_panels"]

_MOST = 8  # lines that can be told apart


@dataclass(frozen=True, slots=True)
class SweepPanel:
    """One swept key with its values, and the setting at each of them; `title` says what else is fixed."""

    title: str
    key: str
    values: tuple[str, ...]
    settings: tuple[Mapping[str, Any], ...]

    @property
    def x(self) -> list[float]:
        """Places of the values: themselves where all are numbers, else 0, 1, 2, ..."""
        try:
            return [float(value) for value in self.values]
        except ValueError:
            return [float(i) for i in range(len(self.values))]


def sweep_panels(summary: Mapping[str, Any]) -> list[SweepPanel]:
    """Return the settings along the swept key with most values, one panel for each combination of the others."""
    vary: Mapping[str, Sequence[str]] = summary.get("vary") or {}
    if not vary:
        return []
    along = max(vary, key=lambda key: len(vary[key]))
    found: dict[tuple[tuple[str, str], ...], dict[str, Mapping[str, Any]]] = {}
    for setting in summary["settings"].values():
        fixed = tuple((key, value) for key, value in setting["values"].items() if key != along)
        found.setdefault(fixed, {})[setting["values"][along]] = setting
    panels = []
    for fixed, by_value in found.items():
        panel = SweepPanel(", ".join(f"{k} = {v}" for k, v in fixed), along, tuple(by_value), tuple(by_value.values()))
        order = sorted(range(len(panel.x)), key=lambda i: panel.x[i])
        panels.append(
            SweepPanel(
                panel.title, along, tuple(panel.values[i] for i in order), tuple(panel.settings[i] for i in order)
            )
        )
    return panels


def draw_sweep(summary: Mapping[str, Any], subject: str = "alignx") -> Plate:
    """Return for each panel the scores of all systems, and `subject` minus its rivals with intervals."""
    panels: list[Panel] = []
    for number, panel in enumerate(sweep_panels(summary)):
        with canvas(560, 350) as figure:
            draw_lines(figure.subplots(), panel)
            description = f"Mean over the axes by {panel.key}, seeds as dots. {_spoken(panel)}"
            panels.append(to_panel(figure, key=f"sweep-{number}-score", description=description))
        every = dict.fromkeys(rival for setting in panel.settings for rival in setting["differences"])
        rivals = [rival for rival in every if rival != subject and _differences(panel, rival, subject)]
        if rivals:
            with canvas(560, 350) as figure:
                _leads(figure.subplots(), panel, subject, rivals)
                description = f"{subject} minus {' and '.join(rivals)} by {panel.key}."
                panels.append(to_panel(figure, key=f"sweep-{number}-lead", description=description))
    if not panels:
        return Plate(absent="No setting was swept.")
    return Plate(tuple(panels))


def _systems(panel: SweepPanel) -> tuple[list[str], list[str]]:
    """Return the systems that get a line with a name, and those that are drawn thin and grey."""
    every = [name for name in panel.settings[0]["systems"] if all(name in s["systems"] for s in panel.settings)]
    systems, alone = panel.settings[0]["systems"], ("base", "expert:")
    several = [name for name in every if not name.startswith(alone)]
    named = sorted(several, key=lambda name: not is_main(systems, name))[:_MOST]
    return (named or every), [name for name in every if name not in named and named]


def draw_lines(ax: Axes, panel: SweepPanel) -> None:
    """Draw the score of every system over the swept values: line of means, interval over seeds, a dot for each seed."""
    named, others = _systems(panel)
    x = panel.x
    width = (max(x) - min(x)) or 1.0
    for name in others:
        ax.plot(x, [_nan(mean_of(s, name)) for s in panel.settings], color=GRID, linewidth=1, zorder=0)
    ends = []
    for number, name in enumerate(named):
        colour = AXIS_COLOURS[number % len(AXIS_COLOURS)]
        spreads = [s["systems"][name]["mean_axis_score"] for s in panel.settings]
        means = [_nan(spread["mean"]) for spread in spreads]
        shift = (number - (len(named) - 1) / 2) * 0.006 * width
        places = [value + shift for value in x]
        errors = [_half_width(spread) for spread in spreads]
        ax.errorbar(places, means, yerr=errors, color=colour, linewidth=1.8, marker="o", markersize=5, elinewidth=1.2)
        for place, spread in zip(places, spreads, strict=True):
            known = [value for value in spread["values"] if value is not None]
            if len(known) > 1:
                ax.plot([place] * len(known), known, "o", color=colour, alpha=0.3, markersize=3.5, markeredgewidth=0)
        ends.append((means[-1], name, colour))
    top = max((end for end in (*(mean for mean, _, _ in ends), 0.0) if end == end), default=1.0)
    ax.set(ylim=(0, max(1.02, top)), xlim=(min(x) - 0.04 * width, max(x) + 0.5 * width))
    _name_lines(ax, ends, max(x) + 0.05 * width)
    if others:
        told = textwrap.fill(f"grey lines: {', '.join(others)}", 90)
        ax.text(0, 0.01, told, transform=ax.transAxes, fontsize=9.5, color=MUTED, va="bottom")
    _swept_axis(ax, panel)
    percent_axis(ax, "y")
    ax.tick_params(axis="y", labelcolor=MUTED, labelsize=11)
    ax.set_ylabel("mean over the axes")


def _half_width(spread: Mapping[str, Any]) -> float:
    """Return half of the 95 % t-interval of a mean over seeds, 0 where one seed says nothing of it."""
    n = len(spread["values"])
    return 0.0 if spread["std"] is None or n < 2 else float(t.ppf(0.975, n - 1)) * spread["std"] / math.sqrt(n)


def _name_lines(ax: Axes, ends: Sequence[tuple[float, str, str]], x: float) -> None:
    """Write each name at the end of its line, moved up or down until no two touch."""
    least, at = 0.062, -1.0
    for mean, name, colour in sorted(((m if m == m else 0.0), n, c) for m, n, c in ends):
        at = max(mean, at + least)
        ax.text(x, at, shorten(name, 26), va="center", fontsize=11, color=colour, clip_on=False)


def _leads(ax: Axes, panel: SweepPanel, subject: str, rivals: Sequence[str]) -> None:
    x = panel.x
    width = (max(x) - min(x)) or 1.0
    ax.axhline(0, color=MUTED, linewidth=1.2)
    for number, rival in enumerate(rivals):
        colour = AXIS_COLOURS[number + 1]
        found = [read_estimate(d) for d in _differences(panel, rival, subject)]
        places = [value + (number - (len(rivals) - 1) / 2) * 0.02 * width for value in x]
        for place, e in zip(places, found, strict=True):
            if e.low is not None and e.high is not None:
                ax.vlines(place, e.low, e.high, color=colour, linewidth=2.8, alpha=0.5)
        ax.plot(
            places,
            [_nan(e.value) for e in found],
            "D-",
            color=colour,
            linewidth=1.2,
            markersize=6,
            label=f"minus {rival}",
        )
    ax.set_ylabel(f"{subject} minus rival, in points")
    ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.3g}".replace("-", "\u2212").replace("+0", "0"))
    ax.tick_params(axis="y", labelcolor=MUTED, labelsize=11)
    _swept_axis(ax, panel)
    ax.set_xlim(min(x) - 0.06 * width, max(x) + 0.06 * width)
    ax.legend(frameon=False, labelcolor=INK)


def _differences(panel: SweepPanel, rival: str, subject: str) -> list[Any]:
    found = [lookup(setting, "differences", rival, subject) for setting in panel.settings]
    return found if any(one is not None for one in found) else []


def _swept_axis(ax: Axes, panel: SweepPanel) -> None:
    ax.set_xticks(panel.x, [shorten(value, 16) for value in panel.values])
    ax.set_xlabel(_in_words(panel.key))
    if panel.title:
        ax.set_title(shorten(panel.title, 60))
    ax.tick_params(length=0)
    ax.grid(axis="y", color=GRID)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)


def _in_words(key: str) -> str:
    """Return what a swept key is about, with the key.

    >>> _in_words("routing.outcome.max_prompts")
    'max prompts (routing.outcome.max_prompts)'
    """
    last = key.rpartition(".")[2].replace("_", " ")
    return key if last == key else f"{last} ({key})"


def _nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _spoken(panel: SweepPanel) -> str:
    named, _ = _systems(panel)
    return "; ".join(
        f"{name}: "
        + ", ".join(
            f"{v} {100 * _nan(mean_of(s, name)):.1f} %" for v, s in zip(panel.values, panel.settings, strict=True)
        )
        for name in named
    )
