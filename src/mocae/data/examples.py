"""Rows that say for themselves what they are: prompt, axis, probe and what a judge needs."""

from __future__ import annotations

from mocae import axes
from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_examples"]


@row_source("examples")
def read_examples(row: Row) -> Example | None:
    """Return a row of the axis that is read, from a file of all axes.

    A row is an object with `prompt`, `axis` (the expert whose kind of prompt it is) and `probe` (what kind of test it
    is, see `mocae ls probes`; an unknown one is a bad row); `response`, `kind`, `group` and `facts` may be there, as in
    `samples.jsonl`.
    """
    if row.text("axis") != row.axis:
        return None
    probe = row.one_of("probe", tuple(axes.PROBES))
    kind, group = row.optional("kind"), row.optional("group")
    response = row.text("response") if row.values.get("response") is not None else None
    facts = row.json("facts") if row.values.get("facts") is not None else {}
    if not isinstance(facts, dict):
        raise row.wrong("facts", f"a {type(facts).__name__}", "an object")
    return row.example(row.text("prompt"), probe, response, kind=kind, group=group, facts=facts)
