"""Tables in a terminal that may be narrow: a number is printed whole or not at all."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

__all__ = ["print_fitted"]

_UNBOUNDED = 10_000
_NAME = 20
"""A name is broken between words down to this width before a column is left out."""


def print_fitted(out: Console, table: Table, *, elsewhere: str = "") -> None:
    """Print `table` without the last columns that `out` is too narrow for, and say which those are.

    The first column holds names and may be broken between words; it and the one after it always stay.

    Args:
        out: where to.
        table: made for this one call; its columns are changed.
        elsewhere: where all numbers are, as in "report.html has them".
    """
    first, *rest = table.columns
    for column in rest:
        column.no_wrap, column.overflow = True, "crop"
    first.overflow = "fold"
    names = [str(cell) for cell in first.cells]
    words = [word for name in names for word in name.split()]
    spare = max(map(cell_len, names), default=0) - max(_NAME, *map(cell_len, words), 0)
    left_out: list[str] = []
    while len(table.columns) > 2 and _wanted(out, table) - max(0, spare) > out.width:
        left_out.insert(0, " ".join(str(table.columns.pop().header).split()))
    out.print(table)
    if left_out:
        hint = f"; {elsewhere}" if elsewhere else ""
        out.print(f"not shown in {out.width} columns: {', '.join(left_out)}{hint}", highlight=False, markup=False)


def _wanted(out: Console, table: Table) -> int:
    return out.measure(table, options=out.options.update(max_width=_UNBOUNDED)).maximum
