"""Tokens as the bytes they add to a text, so that the pieces of an answer, put together, are the answer."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

__all__ = ["Laid", "Pieces", "shown"]

_UNKNOWN = "\ufffd"
_BEFORE = "a"
"""Tokens are decoded after this text: at the beginning of one, decoders drop spaces."""
_RUN = re.compile(f"(?:{_UNKNOWN})+".encode())
_LONGEST_RUN = 16
"""Tokens that are looked at together to find a whole character."""


def _byte_letters() -> dict[str, int]:
    """Return the letter with which byte-level tokenizers (GPT-2's and those after it) write each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()


class Pieces:
    """The bytes of each token of a tokenizer; `Pieces.of` keeps those of the tokenizers in use.

    Args:
        tokenizer: a Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer(_BEFORE, add_special_tokens=False).input_ids
        self._known: dict[int, bytes] = {}
        self._n_before = len(self._decoded([]))

    @staticmethod
    @lru_cache(maxsize=4)
    def of(tokenizer: Any) -> Pieces:
        """Return the pieces of a tokenizer."""
        return Pieces(tokenizer)

    def __getitem__(self, token: int) -> bytes:
        """Return the bytes a token adds to a text; none for a special token."""
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def named(self, token: int) -> bytes:
        """Return the bytes of a token, those of its name for a special one."""
        return self[token] or str(self._tokenizer.convert_ids_to_tokens(token) or "").encode()

    def _bytes(self, token: int) -> bytes:
        text = self._decoded([token])
        if _UNKNOWN not in text:
            return text.encode()
        name = str(self._tokenizer.convert_ids_to_tokens(token))  # a part of a character, alone no text
        if name.startswith("<0x") and len(name) == 6:
            return bytes([int(name[3:5], 16)])
        return bytes(_BYTES[letter] for letter in name) if set(name) <= _BYTES.keys() else text.encode()

    def _decoded(self, tokens: list[int]) -> str:
        text = str(self._tokenizer.decode([*self._before, *tokens], skip_special_tokens=True))
        return text[self._n_before :] if tokens else text


class Laid:
    """The tokens of one answer laid on its text, as both come: the pieces join to the text, whatever was cut from it.

    A token that was cut (spaces around an answer, a stop text) has the bytes that are left of it. Bytes that are no
    text, as of a character that was never finished, are those of U+FFFD, as in the text.

    Args:
        pieces: of the tokenizer.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._left = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.n_characters = 0

    def lay(self, text: str, tokens: Iterable[int]) -> list[bytes]:
        """Return the bytes of each token in the text so far, of which `text` is new."""
        self._left += text.encode()
        pieces, whole = [self._pieces[token] for token in tokens], 0
        for i, piece in enumerate(pieces):
            if i >= whole:
                whole = i + self._n_whole(pieces[i : i + _LONGEST_RUN])
            pieces[i] = piece if i < whole else self._cut(piece)
            self._left = self._left[len(pieces[i]) :]
        return pieces

    def characters(self, piece: bytes) -> str:
        """Return the characters that the next piece completes, and count them."""
        text = self._decoder.decode(piece)
        self.n_characters += len(text)
        return text

    def _n_whole(self, pieces: list[bytes]) -> int:
        """Return how many of the next pieces, as few as are whole characters, stand in the text as they are."""
        joined = b""
        for n, piece in enumerate(pieces, start=1):
            joined += piece
            if not self._left.startswith(joined):
                break
            if _is_text(joined):
                return n
        return 0

    def _cut(self, piece: bytes) -> bytes:
        """Return what is left of a piece that does not stand in the text as it is."""
        piece, left = piece.lstrip(), self._left
        if piece and left and piece.startswith(left):
            return left
        if left.startswith(piece) and _is_text(piece):
            return piece
        broken = _RUN.match(left)  # what a decoder wrote for bytes that are no text
        return broken[0] if broken else b""


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def shown(piece: bytes) -> str:
    r"""Return a piece as text; parts of a character as OpenAI writes them, "bytes:\xf0\x9f"."""
    return piece.decode() if _is_text(piece) else "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
