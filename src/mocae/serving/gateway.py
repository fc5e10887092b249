"""The gateway: an OpenAI-compatible address that routes each request and passes it on. HTTP only.

A request goes to the backend with the mixture's name as its `model` (vLLM) or the weights as its `lora` (llama.cpp).
The words of `Steering` are taken out of the body; fields that are not known here are the backend's and stay. What is
sent on is written anew from what was understood, so that the backend reads what was checked. Streams are passed
through as they come.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2 as httpx
from fastapi import Body, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp

from mocae.errors import ConfigError, PluginError, unknown_name
from mocae.export.chooser import Choice, Chooser
from mocae.policies import Steering
from mocae.serving.canary import prove
from mocae.serving.errors import Overloaded
from mocae.serving.guard import Access, Guard
from mocae.serving.wire.failure import ApiError, error_body, invalid, new_app
from mocae.serving.wire.requests import MAX_TEXTS
from mocae.serving.wire.stream import unless_left

__all__ = ["MODEL_NAME", "backend_address", "create_gateway", "prove_backend"]

logger = logging.getLogger(__name__)

MODEL_NAME = "mocae"
_CONNECTION = {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}
"""Headers about one connection, not about what is said on it."""
_NOT_PASSED_ON = frozenset(
    _CONNECTION | {b"host", b"expect", b"proxy-authorization", b"content-type", b"content-encoding"}
)
_NOT_PASSED_BACK = frozenset(_CONNECTION | {b"proxy-authenticate", b"date", b"server"})


class _Asked(Steering):
    """What the gateway reads of a request; all other fields are for the backend."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    model: str | None = Field(
        default=None, max_length=256, description="'mocae' or null: routed; or a mixture, which is asked as it is."
    )


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    role: str
    content: str | Annotated[list[dict[str, Any]], Field(max_length=MAX_TEXTS)] | None = None

    def text(self) -> str:
        """Return what it says; parts that are no text cannot be read."""
        if isinstance(self.content, list):
            return "\n".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")
        return self.content or ""


class _AskedChat(_Asked):
    messages: list[_Message] = Field(min_length=1, max_length=1024, description="Routed by the last of the user.")

    def prompt(self) -> str:
        """Return the text to route by."""
        text = next((message.text() for message in reversed(self.messages) if message.role == "user"), "")
        if not text.strip():
            message = "messages: no text in the last one of the user, so there is nothing to route by"
            raise invalid("messages", message)
        return text


class _AskedCompletion(_Asked):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)] = Field(
        description="One text; several need several requests, each with its own mixture."
    )

    def text(self) -> str:
        """Return the text to route by."""
        text = self.prompt if isinstance(self.prompt, str) else self.prompt[0]
        if not text.strip():
            raise invalid("prompt", "prompt is empty, so there is nothing to route by")
        return text


def backend_address(address: str) -> str:
    """Return the address of a backend without a slash at its end.

    Raises:
        ConfigError: it is no http address, or holds a name or password, which would be seen in logs and in errors.
    """
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(httpx.URL(address).host) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        is_address = False
    if "@" in address:
        raise ConfigError(
            f"--backend: a name or password stands before {address.rpartition('@')[2]!r}, for all to see; give the "
            "address alone, and a key in MOCAE_BACKEND_KEY"
        )
    if not is_address:
        raise ConfigError(f"--backend {address!r}: not an address; give one as http://127.0.0.1:8000/v1")
    return address.rstrip("/")


class _Backend:
    """The server that holds the experts.

    Args:
        address: up to and with `/v1`.
        key: sent in place of the client's.
        keep_key: whether the client's is for the backend.
    """

    def __init__(self, address: str, key: str | None, *, keep_key: bool) -> None:
        self.address = address
        self._headers = [(b"content-type", b"application/json"), *_key_header(key)]
        self._dropped = _NOT_PASSED_ON if keep_key and key is None else _NOT_PASSED_ON | {b"authorization"}
        self.client: httpx.AsyncClient | None = None

    async def answer(self, request: Request, path: str, content: bytes, extra: Mapping[str, str]) -> Response:
        """Send a body to the backend and return its answer, streamed if it is a stream, with `extra` headers.

        A client that leaves before its answer is there gives the request up.
        """
        headers = [pair for pair in request.headers.raw if pair[0].lower() not in self._dropped] + self._headers
        asking = self._ask(f"{self.address}/{path}", content, headers, extra)
        return await unless_left(request.receive, asking) or Response(status_code=499)  # nobody reads it

    async def _ask(
        self, url: str, content: bytes, headers: list[tuple[bytes, bytes]], extra: Mapping[str, str]
    ) -> Response:
        assert self.client is not None
        try:
            request = self.client.build_request("POST", url, content=content, headers=headers)
            answer = await self.client.send(request, stream=True)
            if not 200 <= answer.status_code <= 599:  # no server of ours can send it on
                await answer.aclose()
                message = f"the backend {url} answers with status {answer.status_code}, which is none of HTTP's"
                raise ApiError(502, message, kind="api_error", code="bad_gateway")
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                response: Response = StreamingResponse(_events(answer), answer.status_code)
            else:
                response = Response(await _whole(answer), answer.status_code)
        except httpx.HTTPError as error:
            raise _silent(url, error) from error
        response.raw_headers += [pair for pair in answer.headers.raw if pair[0].lower() not in _NOT_PASSED_BACK]
        response.raw_headers += [(name.encode(), value.encode()) for name, value in extra.items()]
        return response


def _key_header(key: str | None) -> list[tuple[bytes, bytes]]:
    if key is None:
        return []
    if not key.isascii() or not key.isprintable():
        raise ConfigError("MOCAE_BACKEND_KEY: not a key; accepted: plain characters")
    return [(b"authorization", f"Bearer {key}".encode())]


def prove_backend(
    chooser: Chooser, backend: str, *, key: str | None, wait_s: float, on_wait: Callable[[str], None]
) -> None:
    """Do nothing if the experts act in the backend, see `mocae.serving.canary`.

    Raises:
        ServingError: they do not, or it does not answer.
    """
    with httpx.Client(headers=_key_header(key), timeout=httpx.Timeout(max(wait_s, 60.0), connect=10.0)) as client:
        prove(client, backend_address(backend), chooser.proofs, wait_s=wait_s, on_wait=on_wait)


def _client(transport: httpx.AsyncBaseTransport | None, timeout_s: float) -> httpx.AsyncClient:
    """Return the client of the backend: it keeps no cookies, and clients that read slowly take nobody's place."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(timeout_s, connect=10.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def create_gateway(
    chooser: Chooser,
    backend: str,
    *,
    access: Access | None = None,
    backend_key: str | None = None,
    queue_size: int = 256,
    transport: httpx.AsyncBaseTransport | None = None,
    timeout_s: float = 600.0,
) -> ASGIApp:
    """Return the gateway as an ASGI application.

    Args:
        chooser: routes prompts.
        backend: address of the server that holds the experts, up to and with `/v1`.
        access: who may ask for what. With keys, a client's key is for the gateway and is not passed on.
        backend_key: API key of the backend; None: the client's own `Authorization` is passed on, if there are no keys.
        queue_size: requests that may wait for the router; the next one is refused.
        transport: in place of the network, for tests.
        timeout_s: longest silence of the backend.

    Raises:
        ConfigError: `backend` is no http address, or the key no key.
    """
    access = access or Access()
    behind = _Backend(backend_address(backend), backend_key, keep_key=not access.keys)
    n_waiting = 0

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _client(transport, timeout_s) as client:
            behind.client = client
            yield

    about = "Chooses the mixture of experts for each request and passes it on."
    app = new_app(title="mocae gateway", description=about, lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell that requests are answered; needs no key."""
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the names to ask for: the router, then the mixtures."""
        names = (MODEL_NAME, *chooser.mixtures)
        return {"object": "list", "data": [{"id": n, "object": "model", "owned_by": "mocae"} for n in names]}

    @app.post("/v1/chat/completions")
    async def chat(asked: Annotated[_AskedChat, Body()], request: Request) -> Response:
        """Route a conversation by its last message of the user and pass it on."""
        return await answer(request, "chat/completions", asked, asked.prompt(), is_chat=True)

    @app.post("/v1/completions")
    async def completions(asked: Annotated[_AskedCompletion, Body()], request: Request) -> Response:
        """Route a text and pass it on."""
        return await answer(request, "completions", asked, asked.text(), is_chat=False)

    async def answer(request: Request, path: str, asked: _Asked, prompt: str, *, is_chat: bool) -> Response:
        body = {name: value for name, value in (await request.json()).items() if name not in Steering.model_fields}
        content = _encoded(body)
        if asked.model in chooser.mixtures:
            if word := next(iter(asked.words), None):
                raise invalid(word, f"{asked.model!r} has weights of its own; {word} is for model {MODEL_NAME!r}")
            return await behind.answer(request, path, content, {})
        if asked.model not in (None, MODEL_NAME):
            raise PluginError(unknown_name("model", str(asked.model), (MODEL_NAME, *chooser.mixtures)))
        choice = await choose(prompt, asked, is_chat=is_chat)
        extra = {"x-mocae-weights": json.dumps(choice.weights), "x-mocae-mixture": choice.name}
        return await behind.answer(request, path, _encoded(body | choice.fields), extra)

    async def choose(prompt: str, asked: _Asked, *, is_chat: bool) -> Choice:
        nonlocal n_waiting
        if n_waiting >= queue_size:
            raise Overloaded(f"{n_waiting} requests wait for the router; try again later", retry_after_s=1.0)
        n_waiting += 1
        try:
            return await asyncio.to_thread(chooser.choose, prompt, is_chat=is_chat, steering=asked)
        finally:
            n_waiting -= 1

    return Guard(app, access)


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body as JSON.

    Raises:
        ApiError: it holds what JSON in UTF-8 cannot.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        message = "half of a surrogate pair in the body, which is no text"
        raise ApiError(400, message, code="invalid_value") from error
    except (ValueError, RecursionError) as error:
        message = "a number in the body that is not finite, or values nested too deeply"
        raise ApiError(400, message, code="invalid_value") from error


async def _whole(answer: httpx.Response) -> bytes:
    """Return the bytes of an answer as they came, compressed if they were."""
    try:
        return b"".join([chunk async for chunk in answer.aiter_raw()])
    finally:
        await answer.aclose()


async def _events(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Yield a stream as it comes; where it breaks off, the error is its last event."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError as error:
        yield f"\n\ndata: {error_body(_silent(str(answer.url), error))}\n\n".encode()
    finally:
        await answer.aclose()


def _silent(url: str, error: httpx.HTTPError) -> ApiError:
    message = f"the backend {url} does not answer ({type(error).__name__}: {error})"
    logger.warning("%s", message)
    return ApiError(502, message, kind="api_error", code="bad_gateway")
