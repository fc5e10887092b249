"""Regular expressions of strangers, matched in bounded time: by sets of positions, never by trying again."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["Pattern"]

_Ends = Callable[[str, set[int]], set[int]]
"""From a text and the positions a part may begin at to those it may end at."""

_TOKEN = re.compile(r"\\.|\[\^?\]?[^\]]*\]|\(\?:|\{\d{1,3}(?:,\d{0,3})?\}|.", re.DOTALL)
_REPEATS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_MOST = 1000


class Pattern:
    """A regular expression: characters, classes, groups, alternatives, repetitions, `^` and `$`.

    What looks ahead or behind, refers back or names a group is refused.

    Args:
        text: the expression, at most 1000 characters.

    Raises:
        ValueError: it is none of these, or no expression.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _MOST or text.count("(") > 50:
            raise ValueError(f"longer than {_MOST} characters, or more than 50 groups")
        self.is_plain = re.fullmatch(r"(?:\w|\\?[.-])*", text) is not None
        """Whether it is a module's name, the dots escaped or not."""
        self.plain = text.replace("\\", "")
        self._tokens = _TOKEN.findall(text)[::-1]
        self._ends = self._alternatives()
        if self._tokens:
            raise ValueError("unbalanced parenthesis")

    def ends(self, text: str) -> bool:
        """Return whether the whole text or what follows one of its dots matches, as PEFT looks up a module."""
        starts = {0, *(i + 1 for i, letter in enumerate(text) if letter == ".")}
        return len(text) in self._ends(text, starts)

    def _alternatives(self) -> _Ends:
        branches = [self._sequence()]
        while self._tokens and self._tokens[-1] == "|":
            self._tokens.pop()
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else lambda text, at: set().union(*(b(text, at) for b in branches))

    def _sequence(self) -> _Ends:
        parts: list[_Ends] = []
        while self._tokens and self._tokens[-1] not in ("|", ")"):
            parts.append(self._repeated(self._atom(self._tokens.pop())))

        def ends(text: str, at: set[int]) -> set[int]:
            for part in parts:
                at = part(text, at) if at else at
            return at

        return ends

    def _atom(self, token: str) -> _Ends:
        if token in ("(", "(?:"):
            if self._tokens and self._tokens[-1] == "?":
                raise ValueError("a group that is more than a group")
            inner = self._alternatives()
            if not self._tokens:
                raise ValueError("missing ), unterminated group")
            self._tokens.pop()
            return inner
        if token == "^":
            return lambda text, at: at & {0}
        if token == "$":
            return lambda text, at: at & {len(text)}
        if token in _REPEATS or (token[0] == "\\" and token[1:] in "0123456789AbBZ"):
            raise ValueError(f"{token} stands for no character")
        try:
            matches = re.compile(token, re.DOTALL).fullmatch
        except re.error as error:
            raise ValueError(str(error)) from error
        return lambda text, at: {i + 1 for i in at if i < len(text) and matches(text[i])}

    def _repeated(self, part: _Ends) -> _Ends:
        token = self._tokens[-1] if self._tokens else ""
        if token not in _REPEATS and not (token.startswith("{") and len(token) > 1):
            return part
        self._tokens.pop()
        if self._tokens and self._tokens[-1] == "?":  # as few as can be: the same for a whole match
            self._tokens.pop()
        if token in _REPEATS:
            least, most = _REPEATS[token]
        else:
            low, comma, high = token[1:-1].partition(",")
            least, most = int(low), int(high) if high else None if comma else int(low)

        def ends(text: str, at: set[int]) -> set[int]:
            for _ in range(least):
                at = part(text, at)
            reached, new = set(at), at
            for _ in range(len(text) + 1 if most is None else most - least):
                new = part(text, new) - reached
                if not new:
                    break
                reached |= new
            return reached

        return ends
