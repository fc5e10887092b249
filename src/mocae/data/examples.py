"""Rows that say for themselves what they are: prompt, axis, probe and what a judge needs."""

from __future__ import annotations

from pathlib import Path

from mocae import axes
from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_examples"]


def read_examples(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return the rows of one axis from a file of all axes.

    A row is an object with `prompt`, `axis` (the expert whose kind of prompt it is) and `probe` (what kind of test it
    is, see `mocae ls probes`); `response`, `kind`, `group` and `facts` may be there, as in `samples.jsonl`.

    Args:
        path: JSON, JSONL or any file `mocae.data.read_rows` reads.
        axis: whose rows are taken.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`; an unknown probe is a bad row.
    """

    def convert(row: Row) -> Example | None:
        if row.text("axis") != axis:
            return None
        probe = row.one_of("probe", tuple(axes.PROBES))
        optional = {key: row.optional(key) for key in ("kind", "group")}
        response = row.text("response") if row.values.get("response") is not None else None
        facts = row.json("facts") if row.values.get("facts") is not None else {}
        if not isinstance(facts, dict):
            raise row.wrong("facts", f"a {type(facts).__name__}", "an object")
        return Example(row.text("prompt"), axis, probe, response, facts=facts, source=row.source, **optional)

    return examples_in(needs_path("examples", path), convert, on_bad_row=on_bad_row)
