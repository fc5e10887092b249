"""Axis collapse: the score of every axis after each stage of tuning one axis after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import Rectangle

from mocae.report.colours import MUTED, axis_colour
from mocae.report.figures.canvas import Panel, Plate, canvas, shorten, to_panel
from mocae.report.schema import axis_names, forgetting_tables, read_estimate
from mocae.report.tables import DASH, format_estimate
from mocae.types import Estimate

__all__ = ["draw_forgetting"]

_FRAME = "#e88a00"


def draw_forgetting(report: Mapping[str, Any]) -> Plate:
    """Return a heat map for each order of training, stages down and axes across; the axis just tuned is framed."""
    tables = {name: table for name, table in forgetting_tables(report).items() if table.get("matrix")}
    if not tables:
        return Plate(absent="The run did not tune one axis after the other, so forgetting was not measured.")
    panels = [
        _panel(f"forgetting-{number}", name if len(tables) > 1 else "", table, axis_names(report))
        for number, (name, table) in enumerate(tables.items())
    ]
    return Plate(tuple(panels))


def _panel(key: str, title: str, table: Mapping[str, Any], known: list[str]) -> Panel:
    axes, stages = list(table["axes"]), list(table["stages"])
    values = np.array([[read_estimate(v).value for v in row] for row in table["matrix"]], dtype=float)
    tuned = list(table.get("order") or ())
    height = 62 + 38 * len(stages) + (26 if title else 0)
    with canvas(max(340, 150 + 100 * len(axes)), height) as figure:
        ax = figure.subplots()
        if title:
            ax.set_title(shorten(title, 44), pad=10)
        ax.set(xlim=(-0.5, len(axes) - 0.5), ylim=(len(stages) - 0.5, -0.5))
        for row in range(len(stages)):
            for column, axis in enumerate(axes):
                just_tuned = row > 0 and len(tuned) == len(stages) - 1 and tuned[row - 1] == axis
                _cell(ax, column, row, values[row, column], framed=just_tuned)
        ax.xaxis.tick_top()
        ax.set_xticks(range(len(axes)), [shorten(a, 14) for a in axes])
        for label, axis in zip(ax.get_xticklabels(), axes, strict=True):
            label.set(color=axis_colour(axis, known), fontweight="bold", fontsize=12)
        ax.set_yticks(range(len(stages)), [shorten(s) for s in stages])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return to_panel(figure, key=key, description=f"{title}. {_spoken(axes, stages, values)}".lstrip(". "))


def _cell(ax: Any, x: int, y: int, value: float, *, framed: bool) -> None:
    """Draw one cell; rectangles, since an image would be a bitmap inside the drawing."""
    # The palest and the darkest ends of the map are cut: 0 % must still look like a cell.
    shade = "none" if np.isnan(value) else colormaps["Blues"](0.08 + 0.82 * value)
    ax.add_patch(Rectangle((x - 0.49, y - 0.48), 0.98, 0.96, facecolor=shade))
    if framed:
        ax.add_patch(Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=_FRAME, linewidth=2.4))
    # The cell keeps its colour on a dark page, so its text must too.
    colour = MUTED if np.isnan(value) else "#ffffff" if value > 0.55 else "#10202f"
    text = DASH if np.isnan(value) else f"{100 * value:.1f} %"
    ax.text(x, y, text, ha="center", va="center", fontsize=13.5, color=colour)


def _spoken(axes: list[str], stages: list[str], values: np.ndarray) -> str:
    rows = []
    for stage, row in zip(stages, values, strict=True):
        cells = (None if np.isnan(v) else float(v) for v in row)
        rows.append(
            f"{stage}: " + ", ".join(f"{a} {format_estimate(Estimate(v))}" for a, v in zip(axes, cells, strict=True))
        )
    return "Score of every axis after each stage. " + "; ".join(rows)
