"""What stands before the application: who may ask, how much a request may send, from where a page came, and the end.

What is refused never reaches the application, and what the end of the server cuts off is told so.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocae.serving.errors import Closed
from mocae.serving.failure import ApiError, as_api_error, error_body

__all__ = ["Access", "Closing", "Guard"]

_OPEN = ("/health",)
_DISCARDED_BYTES = 64 * 1024 * 1024
"""Of a body that is too large, read and thrown away so that the client sees the answer and not a broken connection."""


class Closing:
    """How far a server is on its way to its end; the server tells, `Guard` acts.

    Attributes:
        begun: no request is taken any more.
        over: the time of those that run is over as well.
    """

    KEY = "mocae.closing"
    """Where it lies in the state of an ASGI scope."""

    def __init__(self) -> None:
        self.begun = False
        self.over = asyncio.Event()


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask for what.

    Attributes:
        keys: API keys; none: everybody may ask.
        hosts: names the server may be called by, without port; None: any. Without keys this keeps out pages on the
            web whose name was pointed at this machine (DNS rebinding).
        origins: addresses whose pages may ask from a browser.
        body_bytes: largest body.
        body_s: longest time to send it.
    """

    keys: Collection[str] = ()
    hosts: Collection[str] | None = None
    origins: Collection[str] = ()
    body_bytes: int = 1024 * 1024
    body_s: float = 30.0


class Guard:
    """ASGI middleware that refuses a request before anything of it is looked at, and ends what runs when time is up.

    Args:
        app: what it protects.
        access: the rules.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._digests = [_digest(key) for key in access.keys]
        self._entry: ASGIApp = self._serve
        if access.origins:  # first of all: a browser asks without a key, and reads an error only with these headers
            self._entry = CORSMiddleware(
                self._serve,
                allow_origins=access.origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                allow_private_network=True,
                expose_headers=["Retry-After", "X-Mocae-Weights", "X-Mocae-Mixture"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await (self._entry if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        closing = scope.get("state", {}).get(Closing.KEY)
        if closing is None:
            await self._admit(scope, receive, send)
        elif closing.begun:
            await as_api_error(_closed()).response()(scope, receive, send)
        else:
            await _until_closed(closing, self._admit, scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        refused = self._host(headers) or self._key(scope["path"], headers) or self._kind(scope["method"], headers)
        if refused is None:
            try:
                body = await asyncio.wait_for(_read(receive, headers, self._access.body_bytes), self._access.body_s)
            except TimeoutError:
                refused = ApiError(408, f"the body was not there within {self._access.body_s:g} s", code="slow_request")
            except ApiError as error:
                refused = error
        if refused is not None:
            await refused.response()(scope, receive, send)
            return
        if body is None:  # the client left
            return
        await self._app(scope, _replay(body, receive), send)

    def _host(self, headers: dict[bytes, bytes]) -> ApiError | None:
        if self._access.hosts is None:
            return None
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.split(":")[0]
        if name in self._access.hosts:
            return None
        known = ", ".join(sorted(self._access.hosts))
        return ApiError(403, f"this server is not called {name!r}; accepted: {known}", code="unknown_host")

    def _key(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        if not self._digests or path in _OPEN:
            return None
        scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        challenge = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() != "bearer" or not key.strip():
            message = "no API key; send the header 'Authorization: Bearer KEY'"
            return ApiError(401, message, code="missing_api_key", headers=challenge)
        digest = _digest(key.strip())
        # All keys are compared, in constant time, so that the answer's time tells nothing about them.
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):
            return ApiError(401, "this API key is not known here", code="invalid_api_key", headers=challenge)
        return None

    def _kind(self, method: str, headers: dict[bytes, bytes]) -> ApiError | None:
        """Take JSON only: a page elsewhere can send plain text without asking the browser, but not JSON."""
        if method != "POST":
            return None
        kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if kind == "application/json":
            return None
        return ApiError(
            415, f"the body is of type {kind or 'none'!r}; send 'Content-Type: application/json'", code="invalid_body"
        )


def _closed() -> Closed:
    return Closed("the server is shutting down")


async def _until_closed(closing: Closing, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request; when the server's time is over first, end it with 503, a stream with an event that says so."""
    started = complete = False

    async def noted(message: Message) -> None:
        nonlocal started, complete
        started = started or message["type"] == "http.response.start"
        complete = complete or (message["type"] == "http.response.body" and not message.get("more_body", False))
        await send(message)

    serving = asyncio.ensure_future(app(scope, receive, noted))
    over = asyncio.create_task(closing.over.wait())
    try:
        await asyncio.wait((serving, over), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            return
    finally:
        over.cancel()
        serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    if not started:
        await as_api_error(_closed()).response()(scope, receive, send)
    elif not complete:
        last = f"\n\ndata: {error_body(_closed())}\n\n".encode()
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8")).digest()


async def _read(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes | None:
    """Return the body, None if the client left.

    Raises:
        ApiError: it is larger than `most`.
    """
    announced = headers.get(b"content-length", b"")
    too_large = announced.isdigit() and int(announced) > most
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        n_bytes += len(part)
        too_large = too_large or n_bytes > most
        if too_large:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body", False) or n_bytes > _DISCARDED_BYTES:
            break
    if too_large:
        raise ApiError(413, f"the body is larger than {most} bytes; send less", code="request_too_large")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read, then what the connection tells."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
