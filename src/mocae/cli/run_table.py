"""The systems of a report as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from mocae.cli.fitting import print_fitted

__all__ = ["COLUMNS", "print_result"]

COLUMNS: tuple[tuple[str, tuple[tuple[str, ...], ...], bool], ...] = (
    ("mean of\naxes", (("mean_axis_score",),), True),
    ("win\nrate", (("helpfulness", "win_rate"),), True),
    ("tasks", (("helpfulness", "pass_rate"),), True),
    ("unsafe", (("harmlessness", "unsafe_rate"),), False),
    ("over\nrefused", (("harmlessness", "over_refusal_rate"),), False),
    ("true\nx info", (("honesty", "truthful_informative"),), True),
    ("unans-\nwerable", (("honesty", "unanswerable_accuracy"),), True),
    ("ans-\nwerable", (("honesty", "answerable_accuracy"),), True),
    ("honest\nlimits", (("honesty", "honesty_rate"),), True),
    ("MC1", (("honesty", "mc1"),), True),
    ("MC2", (("honesty", "mc2"),), True),
    ("papers\navg", (("average_alignment_score",),), True),
)
"""Heading, places in a system's part of the report (the first that is there counts), higher is better."""


_WIDE = 120
"""Columns of a terminal in which the intervals fit."""


def print_result(report: Mapping[str, Any], html_path: Path, console: Console | None = None) -> None:
    """Print one row a system and where the report lies; `console` is stdout unless given.

    Rates are printed in percent, with the half width of their interval where the terminal is wide enough. Columns no
    system has are left out, and so are the last ones where the terminal is too narrow for all; that is said.
    """
    out = console or Console()
    systems: Mapping[str, Any] = report["systems"]
    cells = {
        heading: [_cell(system, places, spread=out.width >= _WIDE) for system in systems.values()]
        for heading, places, _ in COLUMNS
    }
    shown = [(heading, up) for heading, _, up in COLUMNS if any(cells[heading])]
    headings = (Column(f"{heading}\n{'↑' if up else '↓'}", justify="right", vertical="bottom") for heading, up in shown)
    table = Table(
        "system",
        *headings,
        title=f"{report['recipe']['name']}, percent",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for row, name in enumerate(systems):
        table.add_row(name, *(cells[heading][row] or "-" for heading, _ in shown))
    print_fitted(out, table, elsewhere=f"{html_path.name} has them")
    out.print(f"report: {html_path}", soft_wrap=True, highlight=False)


def _cell(system: Mapping[str, Any], places: tuple[tuple[str, ...], ...], *, spread: bool) -> str:
    """Return the first estimate that is there as "81.2 ± 3.0", or "81.2" without `spread`, "" when none is."""
    for place in places:
        value: Any = system
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and value.get("value") is not None:
            low, high = value.get("low"), value.get("high")
            half = "" if low is None or high is None or not spread else f" ± {50 * (high - low):.1f}"
            return f"{100 * value['value']:.1f}{half}"
    return ""
