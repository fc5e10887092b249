"""Answers as server-sent events, to clients that may leave or stop reading at any time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mocae.serving.request import Event, Failed, Finished, Sink
from mocae.serving.wire.failure import as_api_error, error_body

__all__ = ["EventStream", "Indexed", "Outbox", "unless_left"]

_SENT_TOGETHER = 64
"""Events in one message at most."""

Indexed: TypeAlias = tuple[int, Event]
"""An event with the number of the answer it belongs to."""

_Result = TypeVar("_Result")


async def unless_left(receive: Receive, work: Awaitable[_Result]) -> _Result | None:
    """Return the result of some work, None if the client is gone first; the work is cancelled then."""
    working, leaving = asyncio.ensure_future(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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


class EventStream(Response):
    """Sends events as they come; those that came together are sent together.

    A request that fails before its first event gets a response with the status of its error; after that the error is
    the last event. A client that does not read keeps this waiting; `Connection` drops it.

    Args:
        events: filled from outside, ends with one `Finished` or `Failed` an answer.
        n_answers: how many answers there are.
        write: data of the events to send for one event.
        end: data of the events to send when all answers are finished.
        leave: called once at the end, however it came, with the number of answers that nobody waits for any more.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: asyncio.Queue[Indexed],
        *,
        n_answers: int,
        write: Callable[[int, Event], Iterable[str]],
        end: Callable[[], Iterable[str]],
        leave: Callable[[int], None],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._n_left = n_answers
        self._write, self._end, self._leave = write, end, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await unless_left(receive, self._send(scope, receive, send))
        finally:
            self._leave(self._n_left)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await self._events.get()
        if isinstance(first[1], Failed):
            self._n_left = 0
            await as_api_error(first[1].error).response()(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        batch = [first]
        while batch:
            data = "".join(f"data: {piece}\n\n" for piece in self._pieces(batch))
            if data:
                await send({"type": "http.response.body", "body": data.encode(), "more_body": self._n_left > 0})
            batch = [] if self._n_left <= 0 else [await self._events.get()]
            while batch and not self._events.empty() and len(batch) < _SENT_TOGETHER:
                batch.append(self._events.get_nowait())
            await asyncio.sleep(0)  # a client that reads again after a while has much to get: others go on meanwhile

    def _pieces(self, batch: Iterable[Indexed]) -> Iterator[str]:
        for index, event in batch:
            if isinstance(event, Failed):
                self._n_left = 0
                yield error_body(event.error)
                return
            yield from self._write(index, event)
            if isinstance(event, Finished):
                self._n_left -= 1
                if not self._n_left:
                    yield from self._end()
