"""The gateway: an OpenAI-compatible address that routes each request and passes it on. HTTP only.

A request goes to the backend as it came, with the mixture's name as its `model` (vLLM) or the weights as its `lora`
(llama.cpp). `steer` and `weights` are taken out of the body. Answers are passed through as they come, streamed or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import httpx2 as httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from mocae.errors import ConfigError, DataError, MocaeError
from mocae.export.chooser import Chooser

__all__ = ["MODEL_NAME", "backend_address", "create_gateway"]

MODEL_NAME = "mocae"
_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_MOST_BYTES = 8 * 2**20


class _BadRequest(Exception):
    """What the client sent cannot be passed on."""


def backend_address(backend: str) -> str:
    """Return the address of a backend without a slash at its end.

    Raises:
        ConfigError: it is no http address.
    """
    if not backend.startswith(("http://", "https://")):
        raise ConfigError(f"--backend {backend!r}: not an address; give one as http://127.0.0.1:8000/v1")
    return backend.rstrip("/")


def create_gateway(
    chooser: Chooser, backend: str, *, transport: httpx.AsyncBaseTransport | None = None, timeout_s: float = 600.0
) -> FastAPI:
    """Return the application.

    Args:
        chooser: routes prompts.
        backend: address of the server that holds the experts, up to and with `/v1`.
        transport: in place of the network, for tests.
        timeout_s: longest silence of the backend.

    Raises:
        ConfigError: `backend` is no http address.
    """
    address = backend_address(backend)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(transport=transport, timeout=httpx.Timeout(timeout_s, connect=10.0)) as client:
            app.state.client = client
            yield

    app = FastAPI(title="mocae gateway", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = (MODEL_NAME, *chooser.mixtures)
        return {"object": "list", "data": [{"id": n, "object": "model", "owned_by": "mocae"} for n in names]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(request, "chat/completions")

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await answer(request, "completions")

    async def answer(request: Request, path: str) -> Response:
        try:
            body = _body(await request.body())
            steer, weights = _numbers(body, "steer"), _numbers(body, "weights")
            told = {}
            if body.get("model") not in chooser.mixtures:
                is_chat = path.startswith("chat")
                prompt = _last_message(body) if is_chat else _text(body)
                choice = await anyio.to_thread.run_sync(
                    lambda: chooser.choose(prompt, is_chat=is_chat, steer=steer, weights=weights)
                )
                body |= choice.fields
                told = {"x-mocae-weights": json.dumps(choice.weights), "x-mocae-mixture": choice.name}
        except (_BadRequest, ConfigError, DataError) as error:
            return _refusal(400, str(error))
        except MocaeError as error:
            return _refusal(500, str(error))
        return await _passed_on(request, f"{address}/{path}", body, told)

    return app


async def _passed_on(request: Request, url: str, body: Mapping[str, Any], told: Mapping[str, str]) -> Response:
    """Send a body to the backend and return its answer as it comes."""
    client: httpx.AsyncClient = request.app.state.client
    headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP | {"content-type"}}
    try:
        found = await client.send(client.build_request("POST", url, json=body, headers=headers), stream=True)
    except httpx.HTTPError as error:
        return _refusal(502, f"the backend {url} does not answer ({type(error).__name__}: {error})")

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in found.aiter_raw():
                yield chunk
        finally:
            await found.aclose()

    passed = {k: v for k, v in found.headers.items() if k.lower() not in _HOP_BY_HOP}
    return StreamingResponse(chunks(), status_code=found.status_code, headers={**passed, **told})


def _refusal(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status == 400 else "api_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": None}}, status_code=status)


def _body(raw: bytes) -> dict[str, Any]:
    if len(raw) > _MOST_BYTES:
        raise _BadRequest(f"the body has {len(raw)} bytes; at most {_MOST_BYTES} are taken")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _BadRequest(f"the body is a {type(body).__name__}; it should be an object")
    return body


def _numbers(body: dict[str, Any], key: str) -> dict[str, float] | None:
    """Take a mapping of numbers out of the body."""
    given = body.pop(key, None)
    if given is None:
        return None
    if not isinstance(given, dict) or not all(_is_number(value) for value in given.values()):
        raise _BadRequest(f"{key}: expected an object of numbers, as in {{{key!r}: {{'honesty': 0.5}}}}")
    return {str(name): float(value) for name, value in given.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _last_message(body: Mapping[str, Any]) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise _BadRequest("messages: expected a list of objects with role and content")
    said = [message.get("content") for message in messages if message.get("role") == "user"]
    if not said:
        raise _BadRequest("messages: none of the user, so there is nothing to route by")
    content = said[-1]
    if isinstance(content, list):  # parts; only text can be read
        content = "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict) and p.get("type") == "text")
    if not isinstance(content, str) or not content.strip():
        raise _BadRequest("messages: the last one of the user has no text, so there is nothing to route by")
    return content


def _text(body: Mapping[str, Any]) -> str:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt.strip():
        raise _BadRequest("prompt: expected one text; several prompts need several requests, each with its own mixture")
    return prompt
