"""The server: HTTP in the shapes of the OpenAI API, and nothing about models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Annotated, Any, TypeVar

from fastapi import Body, Path, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive

from mocae.errors import PluginError, unknown_name
from mocae.serving.engine import Limits
from mocae.serving.guard import Access, Guard
from mocae.serving.lanes import Lanes
from mocae.serving.metrics import CONTENT_TYPE_LATEST, Metrics
from mocae.serving.request import Event, Failed, Finished, Ticket
from mocae.serving.served import Served
from mocae.serving.wire import responses as s
from mocae.serving.wire.answering import Asked, ChatAnswers, CompletionAnswers, ask, refuse_unknown, turns_of
from mocae.serving.wire.failure import invalid, new_app
from mocae.serving.wire.requests import AnyRequest, ChatRequest, CompletionRequest
from mocae.serving.wire.stream import EventStream, Indexed, Outbox, unless_left

__all__ = ["Settings", "build_app"]

_Result = TypeVar("_Result")

_LONG_TEXT = 20_000
"""Characters from which text is read or written in another thread, so that others are not kept waiting."""
_LOGPROB = 80
"""Characters of a log-probability in a response."""

_ERRORS = {
    400: "a field is wrong",
    401: "no API key, or an unknown one",
    403: "the server is not called by this name",
    404: "no such model or path",
    405: "no such method here",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    429: "the queue is full; Retry-After says when to come back",
    500: "a defect of the server",
    503: "the server is shutting down",
    504: "the answer was not there in time",
}
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "the answer"}
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server behaves.

    Attributes:
        access: who may ask for what.
        limits: how much the engine takes on.
        max_tokens: longest answer a client may ask for; None: what the context holds.
        timeout_s: time of a request, waiting included; None: no limit.
    """

    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    max_tokens: int | None = None
    timeout_s: float | None = 120.0


class _Server:
    """The engine as the routes use it: one event loop, many clients."""

    def __init__(self, served: Served, settings: Settings) -> None:
        self.served = served
        self.settings = settings
        self.engine = Lanes(served, limits=settings.limits)
        self.metrics = Metrics(self.engine)
        self._outbox: Outbox | None = None

    async def open(self, body: AnyRequest) -> None:
        """Load what a request asks for, where that was not done yet; others are answered meanwhile."""
        name = body.policy or body.model
        if name in self.served.models and not self.engine.is_ready(name):
            await asyncio.to_thread(self.engine.prepare, name)

    def checked(self, body: AnyRequest, prompts: Sequence[Sequence[int]]) -> Asked:
        """Return a request that fits the model and the queue."""
        settings = self.settings
        asked = ask(body, prompts, served=self.served, max_tokens=settings.max_tokens, timeout_s=settings.timeout_s)
        most = settings.limits.batch_size + settings.limits.queue_size
        if len(asked.requests) > most:
            raise invalid("n", f"{len(asked.requests)} answers in one request; at most {most}")
        return asked

    def submit(self, asked: Asked) -> tuple[asyncio.Queue[Indexed], list[Ticket]]:
        """Queue the requests; their events come out of the queue returned."""
        events: asyncio.Queue[Indexed] = asyncio.Queue()
        outbox = self._outbox = self._outbox or Outbox(asyncio.get_running_loop())

        def deliver(index: int, event: Event) -> None:
            if isinstance(event, Finished):
                self.metrics.answer(asked.model, event)
            events.put_nowait((index, event))

        sinks = [outbox.sink(partial(deliver, i)) for i in range(len(asked.requests))]
        return events, self.engine.submit(asked.requests, sinks)

    async def respond(self, asked: Asked, answers: ChatAnswers | CompletionAnswers, receive: Receive) -> Response:
        """Return the response, whole or streamed; requests are given up when the client leaves."""
        events, tickets = self.submit(asked)
        n = len(tickets)

        def leave(n_left: int) -> None:
            for ticket in tickets:
                ticket.cancel()
            if n_left:
                self.metrics.cancelled(n_left)

        if asked.requests[0].stream:
            return EventStream(events, n_answers=n, write=answers.write, end=answers.end, leave=leave)
        done: dict[int, Finished] = {}
        n_left = n
        try:
            while len(done) < n:
                indexed = await unless_left(receive, events.get())
                if indexed is None:
                    return Response(status_code=499)  # nobody reads it; the log does
                index, event = indexed
                if isinstance(event, Failed):
                    n_left = 0  # the others are given up by us, not by the client
                    raise event.error
                assert isinstance(event, Finished)
                done[index] = event
                n_left -= 1
        finally:
            leave(n_left)

        def written() -> str:
            return answers.whole([done[i] for i in range(n)]).model_dump_json()

        return Response(await _perhaps_aside(asked.n_logprobs * _LOGPROB, written), media_type="application/json")


def build_app(served: Served, settings: Settings | None = None) -> ASGIApp:
    """Return the server as an ASGI application; the engine runs for as long as its lifespan lasts.

    Args:
        served: the models.
        settings: how it behaves.
    """
    settings = settings or Settings()
    server = _Server(served, settings)
    created = int(time.time())
    app = new_app(
        title="mocae",
        version=served.version,
        description="A bank of experts and a policy for their weights, behind the OpenAI API.",
        lifespan=server.engine.running,
        responses={status: {"model": s.ErrorBody, "description": about} for status, about in _ERRORS.items()},
    )

    @app.post("/v1/chat/completions", response_model=s.ChatCompletion, responses=_STREAMED)
    async def chat_completions(body: Annotated[ChatRequest, Body()], request: Request) -> Response:
        """Answer a conversation."""
        turns = turns_of(body)
        await server.open(body)
        read = partial(served.chat_tokens, turns, model=body.policy or body.model)
        tokens = await _perhaps_aside(sum(len(turn.text) for turn in turns), read)
        asked = server.checked(body, [tokens])
        return await server.respond(asked, ChatAnswers(asked, served), request.receive)

    @app.post("/v1/completions", response_model=s.Completion, responses=_STREAMED)
    async def completions(body: Annotated[CompletionRequest, Body()], request: Request) -> Response:
        """Continue texts as they stand, without the run's prompt format."""
        await server.open(body)
        prompts = body.prompts()
        n_characters = sum(len(prompt) for prompt in prompts if isinstance(prompt, str))

        def read() -> list[list[int]]:
            return [served.text_tokens(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]

        tokens = await _perhaps_aside(n_characters, read)
        refuse_unknown(chain.from_iterable(tokens), served.vocabulary, param="prompt")
        asked = server.checked(body, tokens)
        return await server.respond(asked, CompletionAnswers(asked, served), request.receive)

    def card(name: str) -> s.ModelCard:
        return s.ModelCard(id=name, created=created, description=served.models[name], experts=list(served.experts))

    @app.get("/v1/models", response_model=s.ModelList)
    async def models() -> s.ModelList:
        """List the names to ask for: the systems of the run, its best router first."""
        return s.ModelList(data=[card(name) for name in served.models])

    @app.get("/v1/models/{model}", response_model=s.ModelCard)
    async def model(model: Annotated[str, Path(max_length=256)]) -> s.ModelCard:
        """Describe one model."""
        if model not in served.models:
            raise PluginError(unknown_name("model", model, served.models))
        return card(model)

    @app.get("/health", response_model=s.Health, responses={503: {"model": s.Health}})
    async def health() -> Response:
        """Tell whether requests are answered; needs no key."""
        engine = server.engine
        body = s.Health(status="ok" if engine.alive else "closing", waiting=engine.n_waiting, running=engine.n_running)
        return Response(body.model_dump_json(), 200 if engine.alive else 503, media_type="application/json")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Tell Prometheus about latency, queue, tokens and routing."""
        return Response(server.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    server.metrics.paths = [route.path for route in app.routes if hasattr(route, "path")]
    return Guard(app, settings.access, measure=server.metrics.request)


async def _perhaps_aside(n_characters: int, function: Callable[[], _Result]) -> _Result:
    """Return the result of a function, called in another thread when there is much text."""
    return function() if n_characters < _LONG_TEXT else await asyncio.to_thread(function)
