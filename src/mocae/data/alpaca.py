"""Alpaca: instructions with one reference output each."""

from __future__ import annotations

from pathlib import Path

from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_alpaca"]


def read_alpaca(
    path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", most_words: int | None = None
) -> ReadResult:
    """Return instructions as "task" prompts, with the reference output as response and as `facts["reference"]`.

    A row's input, where there is one, follows its instruction after an empty line; the column may be missing or null.
    Rows without an output are bad rows (the published file has some): they would teach to say nothing, and nothing can
    be compared with them.

    Args:
        path: rows of instruction, output and maybe input.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        most_words: leave out tasks with a longer output: a short one can be compared word for word.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.

    Reference:
        Taori et al., *Stanford Alpaca*, 2023.
    """

    def convert(row: Row) -> Example | None:
        instruction = row.text("instruction")
        extra = row.optional("input")
        output = row.text("output")
        if most_words is not None and len(output.split()) > most_words:
            return None
        prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
        return Example(prompt, axis=axis, probe="task", response=output, facts={"reference": output}, source=row.source)

    return examples_in(needs_path("alpaca", path), convert, on_bad_row=on_bad_row)
