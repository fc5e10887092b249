"""The systems of a report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from mocae.axes import stored_probe
from mocae.cli.fitting import print_fitted
from mocae.metrics import Unit, metric
from mocae.report.schema import lookup
from mocae.report.tables import metric_paths

__all__ = ["print_result"]

_WIDE = 120
"""Columns of a terminal in which the intervals fit."""


def print_result(report: Mapping[str, Any], html_path: Path, console: Console | None = None) -> None:
    """Print one row a system and where the report lies; `console` is stdout unless given.

    The columns are the metrics that the prompts of each axis carry. Rates are printed in percent, with the half width
    of their interval where the terminal is wide enough. Columns no system has are left out, and so are the last ones
    where the terminal is too narrow for all; that is said.
    """
    out = console or Console()
    systems: Mapping[str, Any] = report["systems"]
    columns = []
    for axis, heading, name, path in _headed(report):
        spread = out.width >= _WIDE
        cells = [_cell(lookup(system, *path), metric(name).unit, spread=spread) for system in systems.values()]
        if any(cells):
            columns.append((axis, heading, metric(name).arrow, cells))
    twice = [heading for _, heading, _, _ in columns]
    table = Table(
        "system",
        *(
            Column(
                f"{axis}\n{heading}\n{arrow}" if twice.count(heading) > 1 else f"{heading}\n{arrow}",
                justify="right",
                vertical="bottom",
            )
            for axis, heading, arrow, _ in columns
        ),
        title=f"{report['recipe']['name']}, percent",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for row, name in enumerate(systems):
        table.add_row(name, *(cells[row] or "-" for _, _, _, cells in columns))
    print_fitted(out, table, elsewhere=f"{html_path.name} has them")
    out.print(f"report: {html_path}", soft_wrap=True, highlight=False)


def _headed(report: Mapping[str, Any]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return (axis, heading, metric, path) of what a terminal shows: no axis scores, and no factors of a product.

    A pass rate is shown where a probe of the axis carries it, under the label of that probe.
    """
    shown = []
    for axis, name, path in metric_paths(report):
        heading = metric(name).heading
        if name == "pass_rate":
            probes = [stored_probe(probe) for probe in lookup(report, "probes", axis) or ()]
            heading = "\n".join(probe.label or probe.name for probe in probes if name in probe.metrics)
        if heading and name != "axis_score" and not metric(name).part_of:
            shown.append((axis, heading, name, path))
    return shown


def _cell(value: Any, unit: Unit, *, spread: bool) -> str:
    """Return an estimate as "81.2 ± 3.0", or "81.2" without `spread`, "" when there is none."""
    if not isinstance(value, Mapping) or value.get("value") is None:
        return ""
    factor, digits = (1, 3) if unit not in ("percent", "points", "difference") else (100, 1)
    low, high = value.get("low"), value.get("high")
    half = "" if low is None or high is None or not spread else f" ± {factor * (high - low) / 2:.{digits}f}"
    return f"{factor * value['value']:.{digits}f}{half}"
