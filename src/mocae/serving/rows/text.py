"""Tokens as they come, text as it may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["TextStream"]

_UNFINISHED = "\ufffd"
"""What a tokenizer decodes a part of a character to."""
_LONGEST_CHARACTER = 32
"""Tokens after which what is no character yet will be none: what is held back is decoded again with each token."""


class TextStream:
    """Turns tokens into text that is final: nothing that was given out is ever taken back.

    Held back are: a character whose bytes are not all there, what may be the beginning of a stop text, and, with
    `strip`, spaces at the end. All pieces together are the text up to the first stop text, whatever their number.

    Args:
        tokenizer: decodes.
        stop: texts that end the answer and do not belong to it.
        strip: leave out spaces and line ends at both ends.

    Attributes:
        stopped: a stop text was met.
        n_given: characters of the answer that are final, counted before stripping.
    """

    def __init__(self, tokenizer: Any, *, stop: Sequence[str] = (), strip: bool = False) -> None:
        self._tokenizer = tokenizer
        self._stop = [text for text in stop if text]
        self._strip = strip
        self._tokens: list[int] = []
        self._window = self._decoded = 0  # tokens [window, decoded) are decoded again with each new one
        self._held = ""
        self._spaces = ""
        self._started = False
        self.stopped = False
        self.n_given = 0

    @property
    def n_decoded(self) -> int:
        """Characters decoded so far, those held back included."""
        return self.n_given + len(self._held)

    @property
    def n_told(self) -> int:
        """Characters of the answer that were given out, counted before stripping: final, and no spaces held back."""
        return self.n_given - len(self._spaces)

    def push(self, token: int) -> str:
        """Return the text that became final with this token, often "" or more than the token's own."""
        self._tokens.append(token)
        return self._give(self._new_text(last=False), last=False)

    def finish(self) -> str:
        """Return what was held back; no token may follow."""
        return self._give(self._new_text(last=True), last=True)

    def _new_text(self, *, last: bool) -> str:
        before = self._text(self._tokens[self._window : self._decoded])
        now = self._text(self._tokens[self._window :])
        unfinished = now.endswith(_UNFINISHED) and len(self._tokens) - self._decoded < _LONGEST_CHARACTER
        if len(now) <= len(before) or (unfinished and not last):
            return ""
        self._window, self._decoded = self._decoded, len(self._tokens)
        return now[len(before) :]

    def _text(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""

    def _give(self, text: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        held = self._held + text
        ends = [at for at in (held.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped = last = True
            final, self._held = held[: min(ends)], ""
        else:
            n_final = len(held) - (0 if last else self._beginning_of_stop(held))
            final, self._held = held[:n_final], held[n_final:]
        self.n_given += len(final)
        return self._stripped(final) if self._strip else final

    def _beginning_of_stop(self, text: str) -> int:
        """Return the length of the longest end of the text that a stop text begins with."""
        longest = max(map(len, self._stop), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((n for n in sizes if any(stop.startswith(text[-n:]) for stop in self._stop)), 0)

    def _stripped(self, text: str) -> str:
        text = self._spaces + text if self._started else text.lstrip()
        kept = text.rstrip()
        self._started = self._started or bool(kept)
        self._spaces = text[len(kept) :] if self._started else ""
        return kept
