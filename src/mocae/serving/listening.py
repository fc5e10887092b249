"""Put a server on an address: who may reach it, and how it stops."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp

from mocae.errors import ConfigError
from mocae.serving.connection import Patience, connection_class
from mocae.serving.guard import Access, Closing

__all__ = [
    "LOOPBACK",
    "Server",
    "access_of",
    "address_of",
    "hosts_of",
    "listen",
    "open_socket",
    "origins_of",
]

API_KEYS_VARIABLE = "MOCAE_API_KEYS"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_SHORTEST_KEY = 16
_LAST_WORDS_S = 2.0
"""Time to send and read that the server is shutting down."""


def access_of(
    host: str,
    *,
    keys: Path | None,
    no_keys: bool,
    hosts: Collection[str],
    origins: Collection[str],
    body_bytes: int,
) -> Access:
    """Return who may ask a server on an address for what.

    Args:
        host: the address.
        keys: file of API keys, see `_read_keys`.
        no_keys: everybody may ask, on any address.
        hosts: more names the server may be called by.
        origins: addresses whose pages may ask from a browser.
        body_bytes: largest body of a request.

    Raises:
        ConfigError: a key or an origin is none, or others could use the server without a key and nobody said that they
            may.
    """
    known = _read_keys(keys)
    if host not in LOOPBACK and not known and not no_keys:
        raise ConfigError(
            f"--host {host} lets other machines in and there are no API keys; give --api-keys FILE or set "
            f"{API_KEYS_VARIABLE}, or say --no-keys if everybody may use this server"
        )
    return Access(known, hosts_of(host, known, hosts), origins_of(origins), body_bytes)


def _read_keys(file: Path | None) -> list[str]:
    """Return the API keys of a file, one a line, and of the environment variable MOCAE_API_KEYS, commas between.

    Raises:
        ConfigError: the file cannot be read or holds none, or a key is shorter than 16 characters or no plain ASCII.
    """
    keys = [key.strip() for key in os.environ.get(API_KEYS_VARIABLE, "").split(",")]
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--api-keys {file}: cannot be read ({error}); give a text file, one key a line"
            ) from error
        in_file = [line for line in lines if line and not line.startswith("#")]
        if not in_file:
            raise ConfigError(f"--api-keys {file}: no key in it; give one key a line")
        keys += in_file
    keys = [key for key in keys if key]
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST_KEY or not key.isascii() or any(c.isspace() for c in key):
            raise ConfigError(
                f"API key {number} has {len(key)} characters; accepted: at least {_SHORTEST_KEY} plain characters "
                "without spaces, as `openssl rand -hex 24` makes them"
            )
    return keys


def hosts_of(host: str, keys: Collection[str], allowed: Collection[str]) -> frozenset[str] | None:
    """Return the names a server may be called by, None where any will do (it asks for keys, or is open to all)."""
    if keys or host not in LOOPBACK:
        return frozenset(name.lower() for name in allowed) | {host} if allowed else None
    return LOOPBACK | {name.lower() for name in allowed}


def origins_of(names: Collection[str]) -> list[str]:
    """Return the origins whose pages may ask, as browsers write them.

    Raises:
        ConfigError: one is no origin.
    """
    origins = [origin.lower() for origin in names]
    for origin in origins:
        with suppress(ValueError):
            parts = urlsplit(origin)
            plain = f"{parts.scheme}://{parts.netloc}"
            if parts.hostname and parts.port != 0 and "@" not in origin and plain == origin and origin.isascii():
                continue
        raise ConfigError(
            f"--allow-origin {origin!r}: not an origin; accepted: scheme, host and port of a page and nothing after "
            "them, as in http://localhost:3000"
        )
    return origins


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: the address is not this machine's, or taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}; try another --port") from error


def address_of(opened: socket.socket, host: str) -> str:
    """Return the address of a listening socket, as a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{opened.getsockname()[1]}"


class Server(uvicorn.Server):
    """An HTTP server that tells clients when it ends.

    Args:
        app: what it serves; behind a `Guard` its requests are ended in time.
        grace_s: time of running answers at the end.
        patience: with connections.
        log_level: of uvicorn; "info" writes one line a request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_s: float = 20.0,
        patience: Patience | None = None,
        log_level: str = "warning",
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connection_class(patience or Patience()),
            ws="none",
            log_level=log_level,
            access_log=log_level == "info",
            server_header=False,
            proxy_headers=False,  # a client writes X-Forwarded-For as it likes, and would write the log with it
            timeout_graceful_shutdown=round(grace_s + 2 * _LAST_WORDS_S) + 1,
            lifespan="on",
        )
        super().__init__(config)
        self._grace_s = grace_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        self._closing = self.lifespan.state[Closing.KEY] = Closing()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections and requests, give running answers their time, and end."""
        ending = asyncio.create_task(self._end())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end(self) -> None:
        self._closing.begun = True
        await asyncio.sleep(self._grace_s)
        self._closing.over.set()
        await asyncio.sleep(_LAST_WORDS_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def listen(
    app: ASGIApp,
    opened: socket.socket,
    *,
    grace_s: float,
    patience: Patience | None = None,
    log_level: str = "warning",
) -> None:
    """Serve until SIGINT or SIGTERM; then take no more connections and give running answers `grace_s` to end."""
    Server(app, grace_s=grace_s, patience=patience, log_level=log_level).run(sockets=[opened])
