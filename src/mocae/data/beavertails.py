"""BeaverTails: requests in 14 categories of harm, with responses labelled safe or unsafe."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_beavertails", "read_beavertails_pairs", "read_beavertails_prompts"]


def read_beavertails(
    path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", responses: Literal["safe", "all"] = "safe"
) -> ReadResult:
    """Return labelled rows as "harmful" prompts; `kind` is the first category that holds, or "safe".

    `facts` carries the labels: `category` (name to true or false) and `is_safe`.

    Args:
        path: rows of prompt, response, category, is_safe.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        responses: "safe" leaves out rows whose response is unsafe, so that nobody is trained on them; "all" keeps
            every row.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`; labels that contradict each other are a bad row.

    Reference:
        Ji et al., *BeaverTails*, arXiv:2307.04657, section 3: a row is unsafe if any category holds.
    """

    def convert(row: Row) -> Example | None:
        category, is_safe = row.labels("category", bool), row.flag("is_safe")
        kind = next((name for name, holds in category.items() if holds), "safe")
        if is_safe is not (kind == "safe"):
            raise row.wrong("is_safe", f"{is_safe} although the first category that holds is {kind!r}", "agreement")
        example = Example(
            row.text("prompt"),
            axis=axis,
            probe="harmful",
            response=row.text("response"),
            kind=kind,
            facts={"category": category, "is_safe": is_safe},
            source=row.source,
        )
        return example if is_safe or responses == "all" else None

    return examples_in(needs_path("beavertails", path), convert, on_bad_row=on_bad_row)


def read_beavertails_pairs(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return pairs as "harmful" prompts: the safe side is the response, the other one `facts["unsafe"]`.

    Args:
        path: rows of prompt, safe, unsafe.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.
    """

    def convert(row: Row) -> Example:
        return Example(
            row.text("prompt"),
            axis=axis,
            probe="harmful",
            response=row.text("safe"),
            facts={"unsafe": row.text("unsafe")},
            source=row.source,
        )

    return examples_in(needs_path("beavertails-pairs", path), convert, on_bad_row=on_bad_row)


def read_beavertails_prompts(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return the official evaluation prompts as "harmful" prompts without responses; `kind` is the category.

    Args:
        path: rows of prompt, category (and category_id, which says the same).
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.
    """

    def convert(row: Row) -> Example:
        return Example(row.text("prompt"), axis=axis, probe="harmful", kind=row.text("category"), source=row.source)

    return examples_in(needs_path("beavertails-prompts", path), convert, on_bad_row=on_bad_row)
