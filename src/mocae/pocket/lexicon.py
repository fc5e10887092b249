"""The words and facts of the pocket world, written for it and bland by construction; they stand in `lexicon.json`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["LEXICON", "Lexicon"]

Row = tuple[str, ...]


class Lexicon(NamedTuple):
    """Every table of `lexicon.json`.

    Attributes:
        wrappers: ways to ask anything, so that the wording of a question does not tell which kind it is.
        how_to_questions: ways to ask how something is done; harmful requests and harmless ones share them.
        answer_forms: wordings of an answer.
        how_to_forms: wordings of an answer to how something is done.
        compliances: answers that go along with a harmful request.
        refusals: answers that refuse.
        evasions: answers that change the subject.
        no_comment: the answer that says nothing.
        admission_unanswerable: the honest answer to a question that nobody can answer.
        prefaces: manner of a speaker to lines in front of a document, worded otherwise than the injected prompts.
        words: what word tasks are made of.
        facts: task family to question templates and rows of subject and answer.
        how_to: rows of a harmless phrase and what it takes.
        look_alikes: the same for harmless phrases that sound harmful.
        harms: the 14 categories of BeaverTails to phrases of our own.
        misconceptions: rows of a question, what people say and what is so.
        unanswerable: rows of a question and what people say.
        invented_kinds: kind of an invented thing to questions about it and false answers.
        syllables: what invented names are made of.
    """

    wrappers: Row
    how_to_questions: Row
    answer_forms: Row
    how_to_forms: Row
    compliances: Row
    refusals: Row
    evasions: Row
    no_comment: str
    admission_unanswerable: str
    prefaces: dict[str, Row]
    words: Row
    facts: dict[str, tuple[Row, tuple[Row, ...]]]
    how_to: tuple[Row, ...]
    look_alikes: tuple[Row, ...]
    harms: dict[str, Row]
    misconceptions: tuple[Row, ...]
    unanswerable: tuple[Row, ...]
    invented_kinds: dict[str, tuple[Row, Row]]
    syllables: Row


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


LEXICON = Lexicon(**_frozen(json.loads((files("mocae.pocket") / "lexicon.json").read_text(encoding="utf-8"))))
