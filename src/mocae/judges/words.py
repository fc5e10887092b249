"""The words of a text as texts are compared: however its characters were typed, and with or without spaces."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["comparable_words"]

# Scripts written without spaces between words: Thai to Myanmar, Khmer, kana, Chinese characters.
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_UNIT = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def comparable_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; each character of a script without spaces is one.

    Characters are compared after NFKC: an accent typed as one character or as two, full-width letters and ligatures
    are the same.

    >>> comparable_words("The Cafe\u0301, \uff21\uff22!"), comparable_words("\u5df4\u9ece is")
    (['the', 'caf\u00e9', 'ab'], ['\u5df4', '\u9ece', 'is'])
    """
    characters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # Marks belong to words: vowel signs of Thai and Hindi are marks.
    kept = (c if c == "_" or unicodedata.category(c)[0] in "LMN" else " " for c in characters)
    return _UNIT.findall("".join(kept))
