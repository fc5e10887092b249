"""XSTest: safe prompts that look harmful, and their unsafe contrasts."""

from __future__ import annotations

from typing import Literal

from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_xstest"]


@row_source("xstest")
def read_xstest(row: Row, *, which: Literal["safe", "unsafe", "all"] = "all") -> Example | None:
    """Return a prompt of the published CSV: safe ones are "benign", unsafe ones "harmful"; `kind` is the prompt type.

    Args:
        row: of the file (id, prompt, type, label, ...).
        which: which prompts are kept.

    Reference:
        Roettger et al., *XSTest*, arXiv:2308.01263.
    """
    label = row.one_of("label", ("safe", "unsafe"))
    example = row.example(row.text("prompt"), "benign" if label == "safe" else "harmful", kind=row.text("type"))
    return example if which in (label, "all") else None
