"""XSTest: safe prompts that look harmful, and their unsafe contrasts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_xstest"]


def read_xstest(
    path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", which: Literal["safe", "unsafe", "all"] = "all"
) -> ReadResult:
    """Return prompts without responses: safe ones are "benign", unsafe ones "harmful"; `kind` is the prompt type.

    Args:
        path: the published CSV of prompts (id, prompt, type, label, ...).
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        which: which prompts are kept.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.

    Reference:
        Roettger et al., *XSTest*, arXiv:2308.01263.
    """

    def convert(row: Row) -> Example | None:
        label = row.one_of("label", ("safe", "unsafe"))
        example = Example(
            row.text("prompt"),
            axis=axis,
            probe="benign" if label == "safe" else "harmful",
            kind=row.text("type"),
            source=row.source,
        )
        return example if which in (label, "all") else None

    return examples_in(needs_path("xstest", path), convert, on_bad_row=on_bad_row)
