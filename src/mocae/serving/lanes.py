"""One engine for all systems over the bank of experts, and one more for each other system that is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from mocae.serving.engine import Engine, Limits
from mocae.serving.errors import Closed
from mocae.serving.request import Event, Request, Sink, Ticket
from mocae.serving.served import Served

__all__ = ["Lanes"]


class Lanes:
    """Answers requests to every model of a run, each in the lane of its engine.

    Systems over the bank share one engine and its batch. Another system (TrinityX, joint tuning, a merge) changes the
    base model in its own way: it is loaded when it is first asked for, beside the others, and has an engine, a batch
    and a queue of its own. Use it as a context, or call `start` and `close`.

    Args:
        served: the models.
        limits: of each engine; prefixes and merged mixtures are kept in the shared one alone.

    Attributes:
        limits: as given.
    """

    def __init__(self, served: Served, *, limits: Limits | None = None) -> None:
        self.served = served
        self.limits = limits or Limits()
        self._engines = {"": Engine(served.mixture, limits=self.limits)}
        self._opening = threading.Lock()
        self._closing = False

    def __enter__(self) -> Lanes:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """Requests in the queues."""
        return sum(engine.n_waiting for engine in list(self._engines.values()))

    @property
    def n_running(self) -> int:
        """Answers being written."""
        return sum(engine.n_running for engine in list(self._engines.values()))

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return all(engine.alive for engine in list(self._engines.values()))

    def start(self) -> None:
        """Begin to answer."""
        self._engines[""].start()

    def close(self, *, wait_s: float = 0.0) -> None:
        """Close every engine, see `Engine.close`."""
        with self._opening:
            self._closing = True
        for engine in self._engines.values():
            engine.close(wait_s=wait_s)

    @asynccontextmanager
    async def running(self, _: object = None) -> AsyncIterator[None]:
        """Return a context that starts and closes the engines, as the lifespan of an application."""
        self.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    def open(self, lane: str) -> None:
        """Load the system of a lane and start its engine, unless they are there; it can take seconds.

        Raises:
            Closed: the engines are shutting down.
            MocaeError: the system cannot be loaded.
        """
        with self._opening:
            if lane in self._engines:
                return
            if self._closing:
                raise Closed
            engine = Engine(self.served.generator(lane), limits=self.limits)
            engine.start()
            self._engines[lane] = engine

    def prepare(self, name: str) -> None:
        """Load a model and open its lane, unless that was done; it can take seconds. Errors as in `open`."""
        self.served.generator(name)
        self.open(self.served.lane(name))

    def is_ready(self, name: str) -> bool:
        """Return whether `prepare` returns at once."""
        return self.served.is_loaded(name) and self.served.lane(name) in self._engines

    def submit(self, requests: Sequence[Request], sinks: Sequence[Sink]) -> list[Ticket]:
        """Queue requests in their lanes, all or none of them, and return a ticket for each; see `Engine.submit`.

        A lane that is not open yet is opened first.
        """
        tickets: dict[int, Ticket] = {}
        try:
            for lane in dict.fromkeys(request.lane for request in requests):
                self.open(lane)
                mine = [i for i, request in enumerate(requests) if request.lane == lane]
                new = self._engines[lane].submit([requests[i] for i in mine], [sinks[i] for i in mine])
                tickets |= dict(zip(mine, new, strict=True))
        except BaseException:
            for ticket in tickets.values():
                with suppress(Exception):
                    ticket.cancel()
            raise
        return [tickets[i] for i in range(len(requests))]

    def stream(self, request: Request) -> Iterator[Event]:
        """Yield the events of one request, see `Engine.stream`."""
        self.open(request.lane)
        yield from self._engines[request.lane].stream(request)
