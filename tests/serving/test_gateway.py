"""The gateway in front of a fake OpenAI server: it chooses, passes on, streams, and refuses."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.testclient import TestClient

from export_for_tests import bundle_on
from mocae.errors import ConfigError
from mocae.export import Bundle, export_gguf, export_vllm, load_chooser, write_manifest
from mocae.export.chooser import Choice, Chooser
from mocae.models import load_base
from mocae.policies import CodeBook, PromptBatch, RoutedPolicy
from mocae.serving.gateway import create_gateway
from mocae.serving.guard import Access
from serving_for_tests import ask_everything, live_app
from tiny import tiny_llama, tiny_tokenizer

ALPHA = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 2)


class FakeServer:
    """An OpenAI-compatible server that remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)
        self.app.post("/v1/completions")(self.answer)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if body.get("fail"):
            return JSONResponse({"error": {"message": "no such adapter"}}, status_code=404)
        if body.get("stream"):
            return StreamingResponse(self.words(body), media_type="text/event-stream")
        message = {"role": "assistant", "content": f"I am {body.get('model')}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(
            {"id": "x", "object": "chat.completion", "created": 0, "model": body.get("model"), "choices": [choice]}
        )

    async def words(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        for word in ("I ", "am ", str(body["model"])):
            delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [delta]}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
            await asyncio.sleep(0)
        yield b"data: [DONE]\n\n"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, adapters: dict[str, Path]) -> Bundle:
    root = tmp_path_factory.mktemp("base")
    tiny_llama(max_position_embeddings=256).save_pretrained(root)
    tiny_tokenizer().save_pretrained(root)
    return bundle_on(load_base(root, dtype="fp32", device="cpu"), root, adapters)


@pytest.fixture(scope="session")
def exported(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vllm")
    write_manifest(folder, bundle, to="vllm", details=export_vllm(bundle, folder, alpha=ALPHA, n_mixtures=3))
    return folder


@pytest.fixture(scope="session")
def chooser(exported: Path) -> Chooser:
    return load_chooser(exported)


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(chooser: Chooser, fake: FakeServer) -> Iterator[TestClient]:
    with in_front_of(fake, chooser) as found:
        yield found


def in_front_of(fake: FakeServer, chooser: Chooser, **more: Any) -> TestClient:
    return TestClient(create_gateway(chooser, "http://backend/v1", transport=httpx.ASGITransport(app=fake.app), **more))


def ask(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "mocae", "messages": [{"role": "user", "content": prompt}], **more}


def test_the_mixture_nearest_to_exact_routing_answers(
    client: TestClient, fake: FakeServer, bundle: Bundle, exported: Path
) -> None:
    book = CodeBook.load(exported / "code_book.json")
    for text in ("aaaa", "bbbbb", "ccc"):
        answer = client.post("/v1/completions", json={"model": "mocae", "prompt": text, "max_tokens": 3})
        assert answer.status_code == 200
        body = fake.bodies[-1]
        assert body == {"model": body["model"], "prompt": text, "max_tokens": 3}
        exact = exact_weights(bundle, text)
        assert body["model"] == book.names[int(book.nearest(exact)[0])]
        assert answer.headers["x-mocae-mixture"] == body["model"]
        told = json.loads(answer.headers["x-mocae-weights"])
        assert list(told) == list(bundle.experts)
        assert max(told, key=lambda name: told[name]) == list(bundle.experts)["abc".index(text[0])]
    assert len({body["model"] for body in fake.bodies}) == 3


def exact_weights(bundle: Bundle, text: str) -> torch.Tensor:
    from mocae.experts import pooled_states

    router = bundle.require_router(to="vllm")
    pooled = pooled_states(bundle.base.model, bundle.base.tokenizer, [text], layer=router.layer, pool="mean", label="")
    return RoutedPolicy(router).route(PromptBatch([""], pooled))


def test_streams_pass_through_for_the_openai_client(client: TestClient, fake: FakeServer) -> None:
    answers = client.post("/v1/chat/completions", json=ask("bbb", stream=True))
    assert answers.headers["content-type"].startswith("text/event-stream")
    chunks = [json.loads(line[6:]) for line in answers.text.splitlines() if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == f"I am {fake.bodies[0]['model']}"
    assert answers.text.rstrip().endswith("data: [DONE]")
    with openai.OpenAI(base_url="http://testserver/v1", api_key="secret", http_client=client) as api:
        said = api.chat.completions.create(model="mocae", messages=[{"role": "user", "content": "bbb"}])
    assert said.choices[0].message.content == f"I am {fake.bodies[0]['model']}"
    assert fake.headers[-1]["authorization"] == "Bearer secret"


def test_a_request_may_steer_or_name_weights_or_a_mixture(client: TestClient, fake: FakeServer) -> None:
    client.post("/v1/chat/completions", json=ask("aaa", weights={"honest": 1.0}))
    by_weights = fake.bodies[-1]
    client.post("/v1/chat/completions", json=ask("aaa", steer={"helpful": 0.0, "harmless": 0.0}))
    assert by_weights["model"] == fake.bodies[-1]["model"]
    assert not {"weights", "steer"} & (by_weights.keys() | fake.bodies[-1].keys())
    for words in ({"at_least": {"honest": 1}}, {"prefer": {"honest": 1e6}}, {"at_most": {"helpful": 0, "harmless": 0}}):
        client.post("/v1/chat/completions", json=ask("aaa", **words))
        assert fake.bodies[-1] == ask("aaa", model=by_weights["model"])
    answer = client.post("/v1/chat/completions", json=ask("aaa") | {"model": "mixture-01"})
    assert fake.bodies[-1]["model"] == "mixture-01"
    assert "x-mocae-weights" not in answer.headers
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["mocae", *(f"mixture-0{i}" for i in range(3))]
    assert client.get("/health").json() == {"status": "ok"}


def test_llama_cpp_gets_the_exact_weights(bundle: Bundle, tmp_path: Path, fake: FakeServer) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_manifest(folder, bundle, to="gguf", details=export_gguf(bundle, folder))
    with in_front_of(fake, load_chooser(folder)) as client:
        client.post("/v1/completions", json={"prompt": "ccc"})
    assert fake.bodies[-1]["cache_prompt"] is False  # it may hold keys and values of other weights
    scales = fake.bodies[-1]["lora"]
    assert [entry["id"] for entry in scales] == [0, 1, 2]
    exact = exact_weights(bundle, "ccc")[0].tolist()
    assert [entry["scale"] for entry in scales] == pytest.approx(exact, abs=1e-5)
    low = {name: 0.5 for name, weight in zip(bundle.experts, exact, strict=True) if weight == min(exact)}
    with in_front_of(fake, load_chooser(folder)) as client:
        told = client.post("/v1/completions", json={"prompt": "ccc", "at_least": low}).headers["x-mocae-weights"]
    scales = [entry["scale"] for entry in fake.bodies[-1]["lora"]]
    assert scales[exact.index(min(exact))] == 0.5
    assert sum(scales) == pytest.approx(1, abs=1e-5)
    assert list(json.loads(told).values()) == pytest.approx(scales, abs=1e-5)


def wrong(**changes: Any) -> str:
    return json.dumps(ask("aaa") | changes)


TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HUGE = "9" * 400
BAD: list[tuple[str, str, int, str]] = [
    ("{", CHAT, 400, "the body is not JSON"),
    ("", CHAT, 400, "missing"),
    ("[]", CHAT, 400, "dictionary"),
    ("[" * 50_000, CHAT, 400, "nested too deeply"),
    (wrong(messages="hi"), CHAT, 400, "messages: Input should be a valid list"),
    (wrong(messages=[]), CHAT, 400, "messages"),
    (wrong(messages=[{"role": "system", "content": "a"}]), CHAT, 400, "nothing to route by"),
    (wrong(messages=[{"role": "user", "content": " "}]), CHAT, 400, "nothing to route by"),
    (wrong(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), CHAT, 400, "nothing to route by"),
    (wrong(messages=[{"role": "user", "content": "\ud800"}]), CHAT, 400, "surrogate"),
    (wrong(messages=[{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]), CHAT, 400, "surrogate"),
    (wrong(messages=[{"role": "user", "content": "a" * 300}]), CHAT, 400, "the model's context is 256 tokens"),
    (wrong(user="\ud800"), CHAT, 400, "surrogate"),
    (wrong(**{"\ud800": 1}), CHAT, 400, "unicode"),
    (wrong(temperature=float("nan")), CHAT, 400, "not finite"),
    (wrong(metadata={"a": [float("-inf")]}), CHAT, 400, "not finite"),
    (wrong(model="nope"), CHAT, 404, "unknown model 'nope'"),
    (wrong(model="mixture-0"), CHAT, 404, "Did you mean 'mixture-0"),
    (wrong(model=[]), CHAT, 400, "model: Input should be a valid string"),
    (wrong(model={}), CHAT, 400, "model: Input should be a valid string"),
    (wrong(model="mixture-00", weights={"honest": 1}), CHAT, 400, "'mixture-00' has weights of its own"),
    (wrong(model="mixture-00", steer={"honest": 1}), CHAT, 400, "'mixture-00' has weights of its own"),
    (wrong(steer={"honest": "x"}), CHAT, 400, "valid number"),
    (wrong(steer={"honest": True}), CHAT, 400, "valid number"),
    (wrong(steer={"nobody": 1}), CHAT, 400, "unknown expert 'nobody'"),
    (wrong(steer={"\ud800": 1}), CHAT, 400, "unknown expert"),
    (wrong(steer={"honest": -1}), CHAT, 400, "greater than or equal to 0"),
    (wrong(steer={"honest": 1}, weights={}), CHAT, 400, "give one of them"),
    (wrong(model="mixture-00", at_least={"honest": 1}), CHAT, 400, "'mixture-00' has weights of its own"),
    (wrong(at_least={"honest": 0.7, "helpful": 0.7}), CHAT, 400, "at_least: the shares sum to 1.4"),
    (wrong(at_most={"nobody": 0}), CHAT, 400, "unknown expert 'nobody'"),
    (wrong(weights={"honest": float("nan")}), CHAT, 400, "finite"),
    (wrong(weights={"honest": int(HUGE)}), CHAT, 400, "weights.honest"),
    (wrong(weights=[1]), CHAT, 400, "weights: Input should be a valid dictionary"),
    ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", TEXT, 400, "not JSON"),
    ('{"prompt": "a", "temperature": 1e999}', TEXT, 400, "not finite"),
    ('{"prompt": ["a", "b"]}', TEXT, 400, "prompt"),
    ('{"prompt": [1, 2]}', TEXT, 400, "prompt"),
    ('{"prompt": " "}', TEXT, 400, "nothing to route by"),
    ('{"model": "mocae"}', TEXT, 400, "prompt: missing"),
]


def shaped(answer: Any) -> dict[str, Any]:
    """The error of an answer, whose body is exactly the OpenAI shape."""
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.json()["error"]  # type: ignore[no-any-return]


def test_what_cannot_be_routed_is_refused_and_never_reaches_the_backend(client: TestClient, fake: FakeServer) -> None:
    seen = []
    for body, path, _, message in BAD:
        answer = client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
        said = shaped(answer)["message"]
        seen.append((body[:60], answer.status_code, message in said or said))
    assert seen == [(body[:60], status, True) for body, _, status, _ in BAD]
    assert fake.bodies == []


def test_what_the_backend_reads_is_what_was_checked(client: TestClient, fake: FakeServer) -> None:
    """One parser may take the first of two equal keys and another the last."""
    body = b'{"model": "mixture-01", "prompt": "a", "model": "mixture-02", "seed": %s, "best_of": 2}' % HUGE.encode()
    assert client.post(TEXT, content=body, headers={"Content-Type": "application/json"}).status_code == 200
    assert fake.bodies == [{"model": "mixture-02", "prompt": "a", "seed": int(HUGE), "best_of": 2}]


KEY, TOLD = "a-key-of-the-tests", {"Authorization": "Bearer a-key-of-the-tests"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("GET", "/nowhere", TOLD, b"", 404),
        ("GET", "/docs", TOLD, b"", 404),
        ("GET", "/redoc", TOLD, b"", 404),
        ("GET", CHAT, TOLD, b"", 405),
        ("GET", "/v1/models", {}, b"", 401),
        ("POST", TEXT, {}, b'{"prompt": "a"}', 401),
        ("POST", TEXT, {"Authorization": "Bearer another-key-of-them"}, b'{"prompt": "a"}', 401),
        ("POST", TEXT, TOLD | {"Content-Type": "text/plain"}, b'{"prompt": "a"}', 415),
        ("POST", TEXT, TOLD, b" " * 5_000_000, 413),
        ("POST", TEXT, TOLD | {"Host": "evil.example:80"}, b'{"prompt": "a"}', 403),
    ],
)
def test_who_may_not_ask_never_reaches_the_router(
    chooser: Chooser, fake: FakeServer, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    access = Access(keys=[KEY], hosts={"testserver"}, body_bytes=100_000)
    with in_front_of(fake, chooser, access=access) as client:
        answer = client.request(method, path, headers={"Content-Type": "application/json"} | headers, content=content)
        assert client.get("/health").json() == {"status": "ok"}
    assert answer.status_code == status
    shaped(answer)
    assert fake.bodies == []


@pytest.mark.parametrize(
    ("keys", "backend_key", "expected"),
    [([], None, TOLD["Authorization"]), ([KEY], None, None), ([KEY], "theirs", "Bearer theirs")],
)
def test_a_key_goes_to_the_server_it_is_for(
    chooser: Chooser, fake: FakeServer, keys: list[str], backend_key: str | None, expected: str | None
) -> None:
    with in_front_of(fake, chooser, access=Access(keys=keys), backend_key=backend_key) as client:
        assert client.post(TEXT, json={"prompt": "a"}, headers=TOLD).status_code == 200
    assert fake.headers[-1].get("authorization") == expected
    with pytest.raises(ConfigError, match="MOCAE_BACKEND_KEY: not a key"):
        create_gateway(chooser, "http://backend/v1", backend_key="a\nb")


class Slow(Chooser):
    """Chooses when it is told to."""

    mixtures = ()

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def choose(self, *_: Any, **__: Any) -> Choice:
        self.asked.set()
        assert self.go.wait(5)
        return Choice({}, {}, "")


def test_a_full_queue_is_429(fake: FakeServer) -> None:
    slow = Slow()
    with in_front_of(fake, slow, queue_size=1) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, TEXT, json={"prompt": "a"})
        assert slow.asked.wait(30)
        refused = client.post(TEXT, json={"prompt": "a"})
        slow.go.set()
        assert first.result().status_code == 200
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert shaped(refused)["code"] == "queue_full"


class Breaking(httpx.AsyncBaseTransport):
    """A backend that leaves in the middle of its answer."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": self.kind}, content=self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b'data: {"a": 1'
        raise httpx.ReadError("gone")


def test_a_backend_that_leaves_is_told(chooser: Chooser) -> None:
    def answer(kind: str) -> Any:
        with TestClient(create_gateway(chooser, "http://backend/v1", transport=Breaking(kind))) as client:
            return client.post(TEXT, json={"prompt": "a"})

    whole, stream = answer("application/json"), answer("text/event-stream")
    assert whole.status_code == 502
    assert "does not answer (ReadError: gone)" in shaped(whole)["message"]
    *_, last = [line for line in stream.text.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "bad_gateway"


class Waiting(httpx.AsyncBaseTransport):
    """A backend that never answers and notes whether anybody still waits."""

    def __init__(self) -> None:
        self.asked, self.given_up = threading.Event(), threading.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        try:
            return await asyncio.Future()
        finally:
            self.given_up.set()


def test_a_client_that_leaves_gives_its_request_up(chooser: Chooser) -> None:
    backend, body = Waiting(), b'{"prompt": "a"}'
    head = f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with live_app(create_gateway(chooser, "http://backend/v1", transport=backend)) as url:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as connection:
            connection.sendall(head.encode() + body)
            assert backend.asked.wait(30)
        assert backend.given_up.wait(30)


def test_errors_of_the_backend_are_passed_on_and_silence_is_a_502(chooser: Chooser, fake: FakeServer) -> None:
    with in_front_of(fake, chooser) as client:
        assert client.post(TEXT, json={"prompt": "a", "model": "mixture-00", "fail": True}).status_code == 404
    with TestClient(create_gateway(chooser, "http://127.0.0.1:9/v1")) as alone:
        answer = alone.post(TEXT, json={"prompt": "a"})
    assert answer.status_code == 502
    assert "does not answer" in shaped(answer)["message"]


class Odd(httpx.AsyncBaseTransport):
    """A backend that sets a cookie and answers with a status of its own."""

    def __init__(self, status: int = 200) -> None:
        self.status, self.cookies = status, list[str | None]()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.cookies.append(request.headers.get("cookie"))
        return httpx.Response(self.status, headers={"set-cookie": "client=one"}, content=self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b"{}"


def test_a_cookie_of_one_clients_answer_is_not_sent_with_anothers_request(chooser: Chooser) -> None:
    backend = Odd()
    app = create_gateway(chooser, "http://backend/v1", transport=backend)
    with TestClient(app) as one:
        assert one.post(TEXT, json={"prompt": "a"}).headers["set-cookie"] == "client=one"  # it is that client's own
        one.cookies.clear()
        one.post(TEXT, json={"prompt": "a"}, headers={"Cookie": "client=two"})
        one.cookies.clear()
        one.post(TEXT, json={"prompt": "a"})
    assert backend.cookies == [None, "client=two", None]


@pytest.mark.parametrize("status", [199, 600, 999])
def test_a_status_that_is_none_of_http_is_a_502(chooser: Chooser, status: int) -> None:
    with TestClient(create_gateway(chooser, "http://backend/v1", transport=Odd(status))) as client:
        answer = client.post(TEXT, json={"prompt": "a"})
    assert answer.status_code == 502
    assert f"answers with status {status}" in shaped(answer)["message"]


def test_clients_that_keep_their_streams_open_lock_nobody_out(chooser: Chooser) -> None:
    streaming = FastAPI()

    @streaming.post("/v1/completions")
    async def answer(request: Request) -> Response:
        async def forever() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"
            await asyncio.Future()

        if (await request.json()).get("stream"):
            return StreamingResponse(forever(), media_type="text/event-stream")
        return JSONResponse({"choices": []})

    body = b'{"prompt": "a", "stream": true}'
    head = f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with ExitStack() as stack:
        backend = stack.enter_context(live_app(streaming))
        url = stack.enter_context(live_app(create_gateway(chooser, f"{backend}/v1")))
        for _ in range(120):  # a pool of the client's default size holds 100
            held = stack.enter_context(socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)))
            held.sendall(head.encode() + body)
            assert held.recv(15) == b"HTTP/1.1 200 OK"
        assert httpx.post(f"{url}{TEXT}", json={"prompt": "a"}, timeout=30).status_code == 200


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://127.0.0.1/v1", "http://", "http://[", "http://a:b", ""])
def test_a_backend_needs_an_address(address: str, chooser: Chooser) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        create_gateway(chooser, address)


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1/v1", "https://token@host/v1"])
def test_a_password_in_the_address_is_refused_and_not_repeated(address: str, chooser: Chooser) -> None:
    with pytest.raises(ConfigError, match="MOCAE_BACKEND_KEY") as refused:
        create_gateway(chooser, address)
    assert "secret" not in str(refused.value)
    assert "token" not in str(refused.value)


def test_over_the_network_too(chooser: Chooser, fake: FakeServer) -> None:
    with live_app(fake.app) as backend, live_app(create_gateway(chooser, f"{backend}/v1/")) as url:
        answer = httpx.post(f"{url}{CHAT}", json=ask("bbb"), headers={"X-Name": b"Ren\xe9"})
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as api:
            streamed = list(api.chat.completions.create(stream=True, **ask("bbb")))
    assert answer.json()["choices"][0]["message"]["content"] == f"I am {fake.bodies[0]['model']}"
    assert fake.bodies[0]["model"].startswith("mixture-")
    assert [len(answer.headers.get_list(name)) for name in ("date", "server", "content-length")] == [1, 0, 1]
    assert len(streamed) == 3


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # schemathesis draws with random
@pytest.mark.parametrize("n", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_no_request_made_from_its_schema_is_a_defect_of_the_gateway(chooser: Chooser, fake: FakeServer, n: int) -> None:
    with live_app(fake.app) as backend, live_app(create_gateway(chooser, f"{backend}/v1")) as url:
        assert ask_everything(url, n) == {CHAT, TEXT, "/v1/models", "/health"}
    assert fake.bodies  # some were whole enough to be passed on
