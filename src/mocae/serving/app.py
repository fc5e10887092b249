"""The server: HTTP in the shapes of the OpenAI API, and nothing about models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Body, FastAPI, Path, Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocae.errors import PluginError, unknown_name
from mocae.serving import schemas as s
from mocae.serving.answering import Asked, ChatAnswers, CompletionAnswers, ask, turns_of
from mocae.serving.engine import Limits
from mocae.serving.failure import ApiError, install
from mocae.serving.guard import Access, Guard
from mocae.serving.lanes import Lanes
from mocae.serving.metrics import CONTENT_TYPE_LATEST, Metrics, label_of
from mocae.serving.outbox import Outbox
from mocae.serving.request import Event, Failed, Finished, Ticket
from mocae.serving.served import Served
from mocae.serving.stream import EventStream, Indexed, client_left

__all__ = ["Settings", "build_app"]

_Result = TypeVar("_Result")

_LONG_TEXT = 20_000
"""Characters from which text is read or written in another thread, so that others are not kept waiting."""
_LOGPROB = 80
"""Characters of a log-probability in a response."""

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": s.ErrorBody, "description": about}
    for status, about in {
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
    }.items()
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

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Return the life of the server."""
        self._outbox = Outbox(asyncio.get_running_loop())
        self.engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.engine.close)

    async def open(self, body: s.ChatRequest | s.CompletionRequest) -> None:
        """Load what a request asks for, where that was not done yet; others are answered meanwhile."""
        name = body.policy or body.model
        if name in self.served.models and not self.served.is_loaded(name):
            await asyncio.to_thread(self.served.generator, name)
        if name in self.served.models and not self.engine.is_open(lane := self.served.lane(name)):
            await asyncio.to_thread(self.engine.open, lane)

    def checked(self, body: s.ChatRequest | s.CompletionRequest, prompts: Sequence[Sequence[int]]) -> Asked:
        """Return a request that fits the model and the queue."""
        asked = ask(
            body,
            prompts,
            served=self.served,
            max_tokens=self.settings.max_tokens,
            timeout_s=self.settings.timeout_s,
        )
        limits = self.settings.limits
        most = limits.batch_size + limits.queue_size
        if len(asked.requests) > most:
            raise ApiError(
                400, f"{len(asked.requests)} answers in one request; at most {most}", param="n", code="invalid_value"
            )
        return asked

    def submit(self, asked: Asked) -> tuple[asyncio.Queue[Indexed], list[Ticket]]:
        """Queue the requests; their events come out of the queue returned."""
        events: asyncio.Queue[Indexed] = asyncio.Queue()
        outbox = self._outbox
        assert outbox is not None

        def deliver(index: int, event: Event) -> None:
            if isinstance(event, Finished):
                self.metrics.answer(asked.model, event)
            events.put_nowait((index, event))

        sinks = [
            outbox.sink(lambda event, index=i: deliver(index, event))  # type: ignore[misc]
            for i in range(len(asked.requests))
        ]
        return events, self.engine.submit(asked.requests, sinks)

    async def respond(self, asked: Asked, answers: ChatAnswers | CompletionAnswers, receive: Receive) -> Response:
        """Return the response, whole or streamed; requests are given up when the client leaves."""
        events, tickets = self.submit(asked)
        n = n_left = len(tickets)

        def leave(n_left: int) -> None:
            for ticket in tickets:
                ticket.cancel()
            if n_left:
                self.metrics.cancelled(n_left)

        if asked.requests[0].stream:
            return EventStream(events, n_answers=n, write=answers.write, end=answers.end, leave=leave)
        left = asyncio.create_task(client_left(receive))
        done: dict[int, Finished] = {}
        try:
            while n_left:
                event = asyncio.create_task(events.get())
                await asyncio.wait((event, left), return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    event.cancel()
                    return Response(status_code=499)  # nobody reads it; the log does
                index, what = event.result()
                n_left -= 1
                if isinstance(what, Failed):
                    n_left = 0  # the others are given up by us, not by the client
                    raise what.error
                assert isinstance(what, Finished)
                done[index] = what
        finally:
            left.cancel()
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
    app = FastAPI(
        title="mocae",
        version=served.version,
        description="A bank of experts and a policy for their weights, behind the OpenAI API.",
        lifespan=server.running,
        docs_url=None,  # the pages load their scripts from elsewhere
        redoc_url=None,
    )
    install(app)
    errors = {status: _ERRORS[status] for status in _ERRORS if status not in (404, 405)}

    @app.post("/v1/chat/completions", response_model=s.ChatCompletion, responses=_ERRORS | _STREAMED)
    async def chat_completions(body: Annotated[s.ChatRequest, Body()], request: Request) -> Response:
        """Answer a conversation."""
        turns = turns_of(body)
        await server.open(body)
        read = partial(served.chat_tokens, turns, model=body.policy or body.model)
        tokens = await _perhaps_aside(sum(len(turn.text) for turn in turns), read)
        asked = server.checked(body, [tokens])
        return await server.respond(asked, ChatAnswers(asked, served), request.receive)

    @app.post("/v1/completions", response_model=s.Completion, responses=_ERRORS | _STREAMED)
    async def completions(body: Annotated[s.CompletionRequest, Body()], request: Request) -> Response:
        """Continue texts as they stand, without the run's prompt format."""
        await server.open(body)
        given = body.prompts()
        n_characters = sum(len(prompt) for prompt in given if isinstance(prompt, str))

        def read() -> list[list[int]]:
            return [served.text_tokens(prompt) if isinstance(prompt, str) else prompt for prompt in given]

        prompts = await _perhaps_aside(n_characters, read)
        _refuse_unknown_tokens(prompts, served.vocabulary)
        asked = server.checked(body, prompts)
        return await server.respond(asked, CompletionAnswers(asked, served), request.receive)

    def card(name: str) -> s.ModelCard:
        return s.ModelCard(id=name, created=created, description=served.models[name], experts=list(served.experts))

    @app.get("/v1/models", response_model=s.ModelList, responses=errors)
    async def models() -> s.ModelList:
        """List the names to ask for: the systems of the run, its best router first."""
        return s.ModelList(data=[card(name) for name in served.models])

    @app.get("/v1/models/{model}", response_model=s.ModelCard, responses=_ERRORS)
    async def model(model: Annotated[str, Path(max_length=256)]) -> s.ModelCard:
        """Describe one model."""
        if model not in served.models:
            raise PluginError(unknown_name("model", model, served.models))
        return card(model)

    @app.get("/health", response_model=s.Health, responses=errors | {503: {"model": s.Health}})
    async def health() -> Response:
        """Tell whether requests are answered; needs no key."""
        engine = server.engine
        body = s.Health(status="ok" if engine.alive else "closing", waiting=engine.n_waiting, running=engine.n_running)
        return Response(body.model_dump_json(), 200 if engine.alive else 503, media_type="application/json")

    @app.get("/metrics", response_class=Response, responses=errors | {200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Tell Prometheus about latency, queue, tokens and routing."""
        return Response(server.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    paths = [route.path for route in app.routes if hasattr(route, "path")]
    return _Measured(Guard(app, settings.access), server.metrics, paths)


async def _perhaps_aside(n_characters: int, function: Callable[[], _Result]) -> _Result:
    """Return the result of a function, called in another thread when there is much text."""
    return function() if n_characters < _LONG_TEXT else await asyncio.to_thread(function)


def _refuse_unknown_tokens(prompts: Sequence[Sequence[int]], vocabulary: int) -> None:
    for tokens in prompts:
        unknown = next((token for token in tokens if token >= vocabulary), None)
        if unknown is not None:
            message = f"prompt: token {unknown} does not exist; the model has {vocabulary}"
            raise ApiError(400, message, param="prompt", code="invalid_value")


class _Measured:
    """ASGI middleware that notes status and time of every response."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Sequence[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            label = label_of(scope["path"], self._paths)
            self._metrics.request(label, status or 499, time.monotonic() - began)
