"""Replies on disk, one JSON object a line, only ever appended: what was paid for once is never asked again."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mocae.errors import JudgeError
from mocae.texts import whole_text

__all__ = ["CachedReply", "ReplyCache", "reply_key"]

_VERSION = 1
_log = logging.getLogger("mocae.judges")


@dataclass(frozen=True, slots=True)
class CachedReply:
    """A model's text as it came, with its size in tokens (0 where the server does not say).

    `finish` is why it ended, in the server's word; `first` holds log-probabilities of the likeliest first tokens.
    """

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    first: Mapping[str, float] = field(default_factory=dict)


def reply_key(request: Mapping[str, Any]) -> str:
    """Return the identity of a request: SHA-256 of all that shapes the reply, as canonical JSON.

    >>> reply_key({"a": 1, "b": 2}) == reply_key({"b": 2, "a": 1})
    True
    """
    text = json.dumps({"version": _VERSION, **request}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """Replies by key, in memory and, with a path, on disk. Safe to use from several threads.

    A line that a killed run left half written, or that is damaged, is passed over; its reply is asked for again.

    Args:
        path: file to read and append to; None: memory only.

    Raises:
        JudgeError: the file cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._replies: dict[str, CachedReply] = {}
        self._lock = threading.Lock()
        self._torn = False
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> CachedReply | None:
        """Return the reply kept under a key, None when there is none."""
        return self._replies.get(key)

    def put(self, key: str, reply: CachedReply) -> None:
        """Keep a reply; it is on disk when this returns.

        Raises:
            JudgeError: the file cannot be written.
        """
        line = json.dumps({"key": key, **asdict(reply)}, ensure_ascii=True) + "\n"
        with self._lock:
            self._replies[key] = reply
            if self._path is None:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as out:
                    out.write(f"\n{line}" if self._torn else line)
            except OSError as error:
                raise JudgeError(
                    f"{self._path}: a paid reply cannot be kept ({error.strerror}); free space or name another cache, "
                    "the same command goes on"
                ) from error
            self._torn = False

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise JudgeError(f"{path}: the cache cannot be read ({error.strerror}); name another file") from error
        self._torn = bool(content) and not content.endswith(b"\n")
        damaged = 0
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            try:
                row = json.loads(line)  # half of a character, from before, is mended below
                reply = CachedReply(
                    whole_text(str(row["text"])),
                    int(row["prompt_tokens"]),
                    int(row["completion_tokens"]),
                    str(row.get("finish", "")),
                    {str(token): float(value) for token, value in row.get("first", {}).items()},
                )
                self._replies[str(row["key"])] = reply
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                damaged += 1
        if damaged:
            _log.warning("%s: %d damaged lines passed over; these replies are asked for again", path.name, damaged)
