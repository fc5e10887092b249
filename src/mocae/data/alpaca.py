"""Alpaca: instructions with one reference output each."""

from __future__ import annotations

from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_alpaca"]


@row_source("alpaca")
def read_alpaca(row: Row, *, most_words: int | None = None) -> Example | None:
    """Return an instruction as a "task" prompt, with the reference output as response and as `facts["reference"]`.

    A row has instruction, output and maybe input, which follows the instruction after an empty line. Rows without an
    output are bad rows (the published file has some): they would teach to say nothing, and nothing can be compared with
    them.

    Args:
        row: of the file.
        most_words: leave out tasks with a longer output: a short one can be compared word for word.

    Reference:
        Taori et al., *Stanford Alpaca*, 2023.
    """
    instruction, extra, output = row.text("instruction"), row.optional("input"), row.text("output")
    if most_words is not None and len(output.split()) > most_words:
        return None
    prompt = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return row.example(prompt, "task", output, facts={"reference": output})
