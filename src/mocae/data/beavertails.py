"""BeaverTails: requests in 14 categories of harm, with responses labelled safe or unsafe."""

from __future__ import annotations

from typing import Literal

from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_beavertails", "read_beavertails_pairs", "read_beavertails_prompts"]


@row_source("beavertails")
def read_beavertails(row: Row, *, responses: Literal["safe", "all"] = "safe") -> Example | None:
    """Return a labelled row as a "harmful" prompt; `kind` is the first category that holds, or "safe".

    A row has prompt, response, category and is_safe; labels that contradict each other are a bad row. `facts` carries
    them: `category` (name to true or false) and `is_safe`.

    Args:
        row: of the file.
        responses: "safe" leaves out rows whose response is unsafe, so that nobody is trained on them; "all" keeps
            every row.

    Reference:
        Ji et al., *BeaverTails*, arXiv:2307.04657, section 3: a row is unsafe if any category holds.
    """
    category, is_safe = row.labels("category", bool), row.flag("is_safe")
    kind = next((name for name, holds in category.items() if holds), "safe")
    if is_safe is not (kind == "safe"):
        raise row.wrong("is_safe", f"{is_safe} although the first category that holds is {kind!r}", "agreement")
    facts = {"category": category, "is_safe": is_safe}
    example = row.example(row.text("prompt"), "harmful", row.text("response"), kind=kind, facts=facts)
    return example if is_safe or responses == "all" else None


@row_source("beavertails-pairs")
def read_beavertails_pairs(row: Row) -> Example:
    """Return a pair (prompt, safe, unsafe) as a "harmful" prompt: the unsafe side is `facts["unsafe"]`."""
    return row.example(row.text("prompt"), "harmful", row.text("safe"), facts={"unsafe": row.text("unsafe")})


@row_source("beavertails-prompts")
def read_beavertails_prompts(row: Row) -> Example:
    """Return an official evaluation prompt (prompt, category) as a "harmful" prompt; `kind` is the category."""
    return row.example(row.text("prompt"), "harmful", kind=row.text("category"))
