"""Texts that a model wrote: its thoughts apart from its answer, and characters that a file can hold."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Spoken", "split_thought", "whole_text"]

_NAMES = r"(?:think|thinking|seed:think)"
_TAG = re.compile(rf"</?{_NAMES}>|\[/?THINK\]", re.IGNORECASE)
# A tag in quotes or code is spoken of, not used; a thought begins on a line of its own.
_CLOSE = re.compile(rf"(?<![`\"'])(?:</{_NAMES}>|\[/THINK\])(?![`\"'])", re.IGNORECASE)
_OPEN = re.compile(rf"(?:\A\s*|\n[ \t]*)(?:<{_NAMES}>|\[THINK\])", re.IGNORECASE)


class Spoken(NamedTuple):
    """A thought without its tags ("" where there is none), and the answer."""

    thought: str
    answer: str


def split_thought(text: str) -> Spoken:
    r"""Return the thought and the answer of a reasoning model's text.

    What stands before the last closing tag is thought, also where the opening tag is missing because the chat template
    wrote it. So is everything behind an opening tag that is never closed: a thought cut off is no answer. Tags are
    <think>, <thinking>, <seed:think> and [THINK]. A text without them is returned as it is.

    >>> split_thought("<think>\nLima or Cusco?\n</think>\n\nIt is Lima.")
    Spoken(thought='Lima or Cusco?', answer='It is Lima.')
    >>> split_thought("<think>It is Lima, but wait").answer
    ''
    """
    closed = max((match.end() for match in _CLOSE.finditer(text)), default=0)
    rest = text[closed:]
    opened = _OPEN.search(rest)
    if not closed and opened is None:
        return Spoken("", text)
    end = len(rest) if opened is None else opened.start()
    return Spoken(_TAG.sub("", text[:closed] + rest[end:]).strip(), rest[:end].strip())


def whole_text(text: str) -> str:
    r"""Return a text that UTF-8 can hold: halves of surrogate pairs are joined, or replaced where they are alone.

    >>> whole_text("a\ud83d\ude00 b\ud83d") == "a\U0001f600 b\ufffd"
    True
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
