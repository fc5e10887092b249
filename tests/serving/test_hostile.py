"""Clients that want to hold the server: heads that never end, answers nobody reads, work without bound; and its end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from mocae.serving.app import Settings
from mocae.serving.connection import Patience
from mocae.serving.guard import Access
from mocae.serving.wire.answering import MOST_LOGPROBS, ChatAnswers
from mocae.serving.wire.requests import ChatRequest, CompletionRequest
from serving_for_tests import TinyArtifact, live, live_app, served
from tiny import EOS

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASKED: dict[str, Any] = {"model": "alignx", "messages": [{"role": "user", "content": "who?"}]}
LONG = ASKED | {"max_tokens": 240, "logit_bias": {str(EOS): -100.0}}
HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"
N_BYTES = 32 << 20


@pytest.fixture
def port() -> Iterator[int]:
    """A server with little patience, and one answer that is too large for the buffers between it and a client."""

    async def much(_: Any) -> Response:
        return Response(b" " * N_BYTES)

    app = Starlette(routes=[Route("/health", lambda _: Response("ok")), Route("/much", much)])
    with live_app(app, patience=Patience(head_s=0.4, stall_s=0.4, connections=20)) as url:
        yield httpx.URL(url).port or 0


def connected(port: int, data: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.sendall(data)
    return made


def ended(connection: socket.socket) -> bytes:
    """Return what still comes until the server ends the connection."""
    got = b""
    try:
        while part := connection.recv(1 << 20):
            got += part
    except ConnectionError:
        pass
    return got


@pytest.mark.parametrize("data", [b"", b"G", HEAD, HEAD + b"\r\n" + HEAD], ids=["nothing", "begun", "half", "second"])
def test_a_head_that_does_not_end_is_not_waited_for(port: int, data: bytes) -> None:
    with connected(port, data) as connection:
        began = time.monotonic()
        assert ended(connection).count(b"200 OK") == data.count(b"\r\n\r\n")
        assert time.monotonic() - began < 15


def test_a_head_that_trickles_is_not_waited_for(port: int) -> None:
    with connected(port, HEAD + b"X: ") as connection:
        n_sent = 0
        try:
            while n_sent < 400:
                connection.sendall(b"x")
                n_sent += 1
                time.sleep(0.05)
        except ConnectionError:
            pass
        assert n_sent < 400


def test_too_many_connections_cost_those_that_owe_a_request(artifact: TinyArtifact) -> None:
    settings = Settings(access=Access(["a-key-of-the-tests"]))
    with live(served(artifact), settings, patience=Patience(head_s=60.0, connections=20)) as url:
        port = httpx.URL(url).port or 0
        body = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode()
        held = [connected(port, body if i % 2 else HEAD) for i in range(60)]
        assert httpx.get(f"{url}/health", timeout=20).status_code == 200
        for connection in held[:40]:
            ended(connection)  # of the oldest none is left
        for connection in held:
            connection.close()


def test_a_whole_answer_that_nobody_reads_is_dropped(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)
        assert len(ended(connection)) < N_BYTES
    with connected(port, b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as slow:
        got = 0
        while part := slow.recv(1 << 18):  # slower than the buffers, but it reads
            got += len(part)
            time.sleep(0.01)
        assert got > N_BYTES


MANY: list[tuple[type[Any], dict[str, Any]]] = [
    (CompletionRequest, {"prompt": [True] * 9000}),
    (CompletionRequest, {"prompt": ["a", *[1] * 9000]}),
    (CompletionRequest, {"prompt": [[]] * 9000}),
    (CompletionRequest, {"prompt": [[True] * 900] * 100}),
    (ChatRequest, {"messages": [{}] * 1000}),
    (ChatRequest, {"messages": [{"role": "user", "content": [{}] * 9000}]}),
    (ChatRequest, {"messages": [{"role": "user", "content": "x", **{f"x{i}": i for i in range(9000)}}]}),
    (ChatRequest, ASKED | {f"x{i}": i for i in range(9000)}),
    (ChatRequest, ASKED | {"stop": [1] * 9000}),
    (ChatRequest, ASKED | {"metadata": {str(i): i for i in range(9000)}}),
    (ChatRequest, ASKED | {"logit_bias": {str(i): "x" for i in range(9000)}}),
    (ChatRequest, ASKED | {"stream_options": {str(i): i for i in range(9000)}}),
]


@pytest.mark.parametrize(("kind", "body"), MANY)
def test_a_body_full_of_mistakes_is_read_up_to_the_first(kind: type[Any], body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m"} | body)
    assert caught.value.error_count() <= 4  # one for each form that a field may have


def test_more_log_probabilities_than_a_response_holds_are_refused(artifact: TinyArtifact) -> None:
    with live(served(artifact)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for path, more in (
            (CHAT, LONG | {"n": 128, "logprobs": True, "top_logprobs": 20}),
            (TEXT, {"model": "base", "prompt": ["x"] * 128, "n": 2, "max_tokens": 250, "logprobs": 5}),
        ):
            refused = client.post(path, json=more)
            assert refused.status_code == 400
            assert f"at most {MOST_LOGPROBS} in one response" in refused.json()["error"]["message"]


def test_a_long_response_is_written_beside_the_event_loop(
    artifact: TinyArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[str] = []
    whole = ChatAnswers.whole

    def noted(self: ChatAnswers, answers: Any) -> Any:
        writers.append(threading.current_thread().name)
        return whole(self, answers)

    monkeypatch.setattr(ChatAnswers, "whole", noted)
    with live(served(artifact)) as url, httpx.Client(base_url=url, timeout=60) as client:
        loop = [thread.name for thread in threading.enumerate()]
        assert (
            client.post(CHAT, json=LONG | {"max_tokens": 60, "logprobs": True, "top_logprobs": 20}).status_code == 200
        )
        assert client.post(CHAT, json=ASKED).status_code == 200
    assert (writers[0] in loop, writers[1] in loop) == (False, True)


def test_the_end_is_told_to_whole_and_streamed_answers_without_a_traceback(
    artifact: TinyArtifact, capfd: pytest.CaptureFixture[str]
) -> None:
    whole: list[httpx.Response] = []
    lines: list[str] = []
    begun = threading.Event()

    def ask(url: str) -> None:
        whole.append(httpx.post(f"{url}{CHAT}", json=LONG | {"n": 2}, timeout=60))

    def read(url: str) -> None:
        with httpx.stream("POST", f"{url}{CHAT}", json=LONG | {"n": 2, "stream": True}, timeout=60) as stream:
            for line in stream.iter_lines():
                lines.append(line)
                begun.set()

    with live(served(artifact), grace_s=0.0, log_level="warning") as url:
        asking = [threading.Thread(target=how, args=(url,)) for how in (read, ask)]
        asking[0].start()
        assert begun.wait(60)
        asking[1].start()
        while httpx.get(f"{url}/health", timeout=60).json()["running"] < 3:
            time.sleep(0.005)
    for thread in asking:
        thread.join()
    [refused] = whole
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.json()["error"]["code"] == "shutting_down"
    last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert "Traceback" not in capfd.readouterr().err
