"""Events on their way from the engine's thread to an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from mocae.serving.request import Event, Sink

__all__ = ["Outbox"]


class Outbox:
    """Hands events of all requests to one event loop, with one wake-up for all that come at about the same time.

    A decoding step ends with an event for every streamed answer; a wake-up for each would cost more than the step.

    Args:
        loop: where events are delivered.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: list[tuple[Callable[[Event], None], Event]] = []

    def sink(self, deliver: Callable[[Event], None]) -> Sink:
        """Return a sink for the engine; `deliver` is called in the loop, events in order."""

        def put(event: Event) -> None:
            with self._lock:
                self._events.append((deliver, event))
                first = len(self._events) == 1
            if first and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._drain)

        return put

    def _drain(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        for deliver, event in events:
            deliver(event)
