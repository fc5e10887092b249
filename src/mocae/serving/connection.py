"""Connections that end: one that sends no request, or does not read its answer, holds nothing for long.

uvicorn waits for the head of a request, and for a client to read, as long as it takes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows, where no limit of open files is known
    resource = None  # type: ignore[assignment]

__all__ = ["Connection", "Patience", "connection_class"]

_CHECKS = 4
"""Looks at a connection within the shortest of its times."""
_OTHER_FILES = 128
"""Files the process needs for anything but connections."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long connections are waited for, and how many there may be.

    Attributes:
        head_s: time to send the head of a request, from the first byte or from connecting.
        stall_s: how long a client may keep what is sent to it waiting without reading any of it.
        connections: connections at once; one more ends the one that has owed a request for the longest time.
    """

    head_s: float = 10.0
    stall_s: float = 30.0
    connections: int = 1024

    @property
    def most(self) -> int:
        """Connections that the limit of open files, where there is one, allows."""
        if resource is None:
            return self.connections
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.connections if files == resource.RLIM_INFINITY else min(self.connections, files - _OTHER_FILES)


class Connection(H11Protocol):
    """One connection, with its times.

    Attributes:
        patience: how long it is waited for.
        owes_since: when the client began to owe a request (head or body), `loop.time()`; None: it owes none.
    """

    patience = Patience()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, in the place of a connection that owes a request where there are too many."""
        super().connection_made(transport)
        now = self.loop.time()
        self.owes_since: float | None = now
        self._unsent, self._read_at = 0, now
        self._check = self.loop.call_later(self._pause, self._look)
        if len(self.connections) > self.patience.most:
            owing: list[Any] = [one for one in self.connections if getattr(one, "owes_since", None) is not None]
            longest = min(owing, key=lambda one: one.owes_since)
            longest.owes_since = None  # it is gone in a moment only, and the next newcomer takes another's place
            longest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.owes_since = None
        elif self.owes_since is None:
            self.owes_since = self.loop.time()

    @property
    def _pause(self) -> float:
        return min(self.patience.head_s, self.patience.stall_s) / _CHECKS

    def _look(self) -> None:
        """End the connection if its time is over, else look again."""
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._read_at = unsent, now
        head_due = self.owes_since is not None and (self.cycle is None or self.cycle.response_complete)
        late = head_due and now - (self.owes_since or now) > self.patience.head_s
        stalled = now - self._read_at > self.patience.stall_s
        if stalled:
            self.logger.warning("a client did not read for %g s and was dropped", self.patience.stall_s)
        if late or stalled:
            self.transport.abort()
        else:
            self._check = self.loop.call_later(self._pause, self._look)


def connection_class(patience: Patience) -> type[Connection]:
    """Return the class of connections with such patience."""
    return type("Connection", (Connection,), {"patience": patience})
