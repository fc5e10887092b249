"""What stands before the application: who may ask, how much a request may send, from where a page came, and the end.

What is refused never reaches the application, and what the end of the server cuts off is told so. Starlette's
CORSMiddleware speaks with browsers. Its TrustedHostMiddleware does not stand here: it answers 400 in plain text, not in
the shape of the API, and takes the part of an IPv6 address before its first colon for the name.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mocae.serving.errors import Closed
from mocae.serving.wire.failure import ApiError, as_api_error, error_body

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


class _Sending:
    """Sends a response and notes its status, 0 until it has begun, and whether it is complete."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status, self.complete = 0, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)


class Guard:
    """ASGI middleware that refuses a request before anything of it is looked at, and ends what runs when time is up.

    Args:
        app: what it protects.
        access: the rules.
        measure: told the path, the status and the seconds of every response; 499 where the client left before.
    """

    def __init__(
        self, app: ASGIApp, access: Access, *, measure: Callable[[str, int, float], None] | None = None
    ) -> None:
        self._app = app
        self._access = access
        self._measure = measure
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
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, sending = time.monotonic(), _Sending(send)
        try:
            await self._entry(scope, receive, sending)
        finally:
            if self._measure is not None:
                self._measure(scope["path"], sending.status or 499, time.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        closing = scope.get("state", {}).get(Closing.KEY)
        if closing is None:
            await self._admit(scope, receive, send)
        elif closing.begun:
            await as_api_error(Closed()).response()(scope, receive, send)
        else:
            await _until_closed(closing, self._admit, scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._check(scope["path"], headers)
            if scope["method"] == "POST":
                _check_kind(headers)
            body = await asyncio.wait_for(_read(receive, headers, self._access.body_bytes), self._access.body_s)
        except TimeoutError:
            message = f"the body was not there within {self._access.body_s:g} s"
            await ApiError(408, message, code="slow_request").response()(scope, receive, send)
        except ApiError as refused:
            await refused.response()(scope, receive, send)
        else:
            if body is not None:  # else the client left
                await self._app(scope, _replay(body, receive), send)

    def _check(self, path: str, headers: Headers) -> None:
        """Refuse a request to another name, or without a known key."""
        host = headers.get("host", "").lower()
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.split(":")[0]
        if self._access.hosts is not None and name not in self._access.hosts:
            known = ", ".join(sorted(self._access.hosts))
            raise ApiError(403, f"this server is not called {name!r}; accepted: {known}", code="unknown_host")
        if not self._digests or path in _OPEN:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        challenge = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() != "bearer" or not key.strip():
            message = "no API key; send the header 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="missing_api_key", headers=challenge)
        digest = _digest(key.strip())
        # All keys are compared, in constant time, so that the answer's time tells nothing about them.
        if not any([hmac.compare_digest(digest, known) for known in self._digests]):
            raise ApiError(401, "this API key is not known here", code="invalid_api_key", headers=challenge)


def _check_kind(headers: Headers) -> None:
    """Take JSON only: a page elsewhere can send plain text without asking the browser, but not JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"the body is of type {kind or 'none'!r}; send 'Content-Type: application/json'"
        raise ApiError(415, message, code="invalid_body")


async def _until_closed(closing: Closing, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request; when the server's time is over first, end it with 503, a stream with an event that says so."""
    sending = _Sending(send)
    serving = asyncio.ensure_future(app(scope, receive, sending))
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
    if not sending.status:
        await as_api_error(Closed()).response()(scope, receive, send)
    elif not sending.complete:
        last = f"\n\ndata: {error_body(Closed())}\n\n".encode()
        await send({"type": "http.response.body", "body": last, "more_body": False})


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8")).digest()


async def _read(receive: Receive, headers: Headers, most: int) -> bytes | None:
    """Return the body, None if the client left.

    Raises:
        ApiError: it is larger than `most`.
    """
    announced = headers.get("content-length", "")
    too_large = announced.isdecimal() and int(announced) > most
    parts: list[bytes] = []
    n_bytes, more = 0, True
    while more and n_bytes <= _DISCARDED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
        too_large = too_large or n_bytes > most
        if too_large:
            parts.clear()
        more = message.get("more_body", False)
    if too_large:
        raise ApiError(413, f"the body is larger than {most} bytes; send less", code="request_too_large")
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read, then what the connection tells."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
