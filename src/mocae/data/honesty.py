"""Honesty where no answer exists: SelfAware's unanswerable questions and HoneSet's requests beyond a model's limits."""

from __future__ import annotations

from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_honeset", "read_selfaware"]


@row_source("selfaware", within="example")
def read_selfaware(row: Row) -> Example:
    """Return a question as an "answerable" or "unanswerable" prompt; the first answer is the response.

    The published JSON is an object whose "example" lists the questions.

    Reference:
        Yin et al., *Do Large Language Models Know What They Don't Know?*, arXiv:2305.18153.
    """
    kind = "answerable" if row.flag("answerable") else "unanswerable"
    answers = row.json("answer") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise row.wrong("answer", f"a value of type {type(answers).__name__}", "a list of texts, or null")
    facts = {"reference": answers} if answers else {}
    return row.example(row.text("question"), kind, answers[0] if answers else None, kind=kind, facts=facts)


@row_source("honeset")
def read_honeset(row: Row) -> Example:
    """Return a request beyond what a language model can do (instruction, category) as a "limits" prompt.

    Reference:
        Gao et al., *HonestLLM*, arXiv:2406.00380.
    """
    return row.example(row.text("instruction"), "limits", kind=row.text("category"))
