"""A chat-completions server on 127.0.0.1 that answers, fails and counts as a test says."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behave = Callable[[str, int], Any]
"""(last user message, how often it was asked before) -> text of a reply, or a `Failure`."""


@dataclass(frozen=True)
class Failure:
    """How a request goes wrong: a status, a body as it stands, or silence."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    silence_s: float = 0.0


@dataclass
class EndpointServer:
    """What the server has seen; `base_url` is what a client is given."""

    base_url: str
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    asked_for_models: int = 0
    in_flight: int = 0
    most_in_flight: int = 0


def reply_body(text: str) -> bytes:
    """Return a chat completion as a server sends it."""
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "test",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }
    ).encode()


@contextmanager
def endpoint_server(behave: Behave, *, delay_s: float = 0.0) -> Iterator[EndpointServer]:
    """Return a running server; it stops with the context."""
    lock = threading.Lock()
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.asked_for_models += 1
            there = self.path == "/v1/models"
            self._answer(Failure(200 if there else 404, b'{"object": "list", "data": []}' if there else b"{}"))

        def do_POST(self) -> None:
            if not self.path.startswith("/v1/"):
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(Failure(404))
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
            text = text if isinstance(text, str) else json.dumps(text)  # a list of parts
            with lock:
                before = seen.asked[text]
                seen.asked[text] += 1
                seen.bodies.append(body)
                seen.keys.add(str(self.headers["Authorization"]).removeprefix("Bearer "))
                seen.in_flight += 1
                seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)
            try:
                time.sleep(delay_s)
                self._answer(behave(text, before))
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with lock:
                    seen.in_flight -= 1

        def _answer(self, said: Any) -> None:
            failure = said if isinstance(said, Failure) else Failure(body=reply_body(said))
            if failure.silence_s:
                stopped.wait(failure.silence_s)
                self.close_connection = True
                return
            self.send_response(failure.status)
            for name, value in {"Content-Type": "application/json", **failure.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(failure.body)))
            self.end_headers()
            self.wfile.write(failure.body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen = EndpointServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
