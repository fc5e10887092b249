"""Answers as server-sent events, to clients that may leave or stop reading at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mocae.serving.failure import as_api_error, error_body
from mocae.serving.request import Event, Failed, Finished

__all__ = ["EventStream", "Indexed", "client_left"]

_SENT_TOGETHER = 64
"""Events in one message at most."""

Indexed: TypeAlias = tuple[int, Event]
"""An event with the number of the answer it belongs to."""


async def client_left(receive: Receive) -> None:
    """Wait until the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


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
        self.background = None
        self.status_code = 200
        self.init_headers({"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events
        self._n_left = n_answers
        self._write, self._end, self._leave = write, end, leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        sending = asyncio.create_task(self._send(scope, receive, send))
        leaving = asyncio.create_task(client_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
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
                message = {"type": "http.response.body", "body": data.encode(), "more_body": self._n_left > 0}
                await send(message)
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
