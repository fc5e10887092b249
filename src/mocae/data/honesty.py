"""Honesty where no answer exists: SelfAware's unanswerable questions and HoneSet's requests beyond a model's limits."""

from __future__ import annotations

from pathlib import Path

from mocae.axes import Probe, register_probe
from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_honeset", "read_selfaware"]

register_probe(Probe("answerable", {"abstains": False}))
register_probe(Probe("unanswerable", {"abstains": True}))
register_probe(Probe("limits", {"abstains": True}))


def read_selfaware(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return questions as "answerable" or "unanswerable" prompts; the first answer is the response.

    Args:
        path: the published JSON, an object whose "example" lists the questions.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: the file is of another form, or a row is wrong.

    Reference:
        Yin et al., *Do Large Language Models Know What They Don't Know?*, arXiv:2305.18153.
    """

    def convert(row: Row) -> Example:
        kind = "answerable" if row.flag("answerable") else "unanswerable"
        answers = row.json("answer") or []
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise row.wrong("answer", f"a value of type {type(answers).__name__}", "a list of texts, or null")
        return Example(
            row.text("question"),
            axis=axis,
            probe=kind,
            response=answers[0] if answers else None,
            kind=kind,
            facts={"reference": answers} if answers else {},
            source=row.source,
        )

    return examples_in(needs_path("selfaware", path), convert, on_bad_row=on_bad_row, within="example")


def read_honeset(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return requests beyond what a language model can do as "limits" prompts; `kind` is the category.

    Args:
        path: rows of instruction, category.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.

    Reference:
        Gao et al., *HonestLLM*, arXiv:2406.00380.
    """

    def convert(row: Row) -> Example:
        return Example(row.text("instruction"), axis=axis, probe="limits", kind=row.text("category"), source=row.source)

    return examples_in(needs_path("honeset", path), convert, on_bad_row=on_bad_row)
