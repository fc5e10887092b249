"""What a server means when it refuses a request: all of them, this one, its content, or one of its parameters."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal

__all__ = ["ContentFiltered", "NoText", "Refusal", "refusal", "refused_parameter", "server_word"]

Refusal = Literal["unusable", "filtered", "refused", "empty", "gone", "passing"]
"""unusable: the key, the model or the address; filtered: the content; refused: something else about this request;
empty: a whole reply without text; gone: nothing listens; passing: anything that may go away by itself."""

_UNUSABLE = (401, 402, 403, 404, 405, 407, 410)
_PASSING = (408, 409, 425, 429)
_FILTER = re.compile(
    r"content[ _-]?(?:filter|moderation)|content[ _](?:management )?policy|responsible[ _]?ai|data_inspection_failed"
    r"|invalid_prompt|moderation_(?:blocked|flagged)|requires moderation|prohibited_content|safety (?:filter|system)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context.?length|too (?:long|large)|maximum", re.IGNORECASE)


class ContentFiltered(Exception):
    """The reply says that a content filter cut or withheld it."""


class NoText(ValueError):
    """The reply is whole and holds no text."""


def refusal(failure: Exception) -> Refusal:
    """Return what the failure of a request says about the server and about the request."""
    status = getattr(failure, "status_code", None)
    if isinstance(failure, ContentFiltered | NoText):
        return "filtered" if isinstance(failure, ContentFiltered) else "empty"
    if status is None:
        # A time-out is a connection error too, and may be this request's own.
        names = {kind.__name__ for kind in type(failure).__mro__}
        return "gone" if "APIConnectionError" in names and "APITimeoutError" not in names else "passing"
    if getattr(failure, "code", None) == "insufficient_quota":
        return "unusable"
    if 400 <= status < 500 and status not in _PASSING:
        if _FILTER.search(_sent(failure)):
            return "filtered"
        return "unusable" if status in _UNUSABLE else "refused"
    return "passing"


def refused_parameter(failure: Exception, sent: Collection[str]) -> str | None:
    """Return the parameter of a request that a server does not take; None where it refused something else."""
    if getattr(failure, "status_code", None) not in (400, 422):
        return None
    text = _sent(failure)
    if _FILTER.search(text) or _TOO_LONG.search(text):
        return None
    named = str(getattr(failure, "param", None) or "").rpartition(".")[2]
    if named in sent:
        return named
    return next((name for name in sent if re.search(rf"\b{re.escape(name)}\b", text)), None)


def server_word(failure: Exception) -> str:
    """Return what went wrong in one short line, without the server's page."""
    status: Any = getattr(failure, "status_code", None)
    sent = _sent(failure)
    bare = str(failure).startswith("Error code:") and " - " not in str(failure)
    text = f"{failure} - {sent}" if bare and sent and not sent.startswith("<") else str(failure)
    return f"{type(failure).__name__}{f' {status}' if status else ''}: {' '.join(text.split())[:160]}"


def _sent(failure: Exception) -> str:
    """Return the body that came with a failure, codes and all; its message where there was none."""
    return getattr(getattr(failure, "response", None), "text", "").strip() or str(failure)
