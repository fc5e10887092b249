"""The gateway in front of a fake OpenAI server: it chooses, passes on, streams, and refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.testclient import TestClient

from endpoint_server import endpoint_server
from mocae.errors import ArtifactError, ConfigError, ModelMismatchError
from mocae.export import Bundle, export_gguf, export_peft, export_vllm, load_chooser, write_manifest
from mocae.export.gateway import create_gateway
from mocae.policies import CodeBook, PromptBatch, RoutedPolicy
from run_for_tests import tiny_base

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
        if body.get("model") == "mixture-99":
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


@pytest.fixture
def exported(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "vllm"
    folder.mkdir()
    write_manifest(folder, bundle, to="vllm", details=export_vllm(bundle, folder, alpha=ALPHA, n_mixtures=3))
    return folder


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(exported: Path, fake: FakeServer) -> Iterator[TestClient]:
    transport = httpx.ASGITransport(app=fake.app)
    with TestClient(create_gateway(load_chooser(exported), "http://backend/v1", transport=transport)) as found:
        yield found


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
    client.post("/v1/chat/completions", json=ask("aaa", weights={"pattern": 1.0}))
    by_weights = fake.bodies[-1]
    client.post("/v1/chat/completions", json=ask("aaa", steer={"all": 0.0, "rslora": 0.0}))
    assert by_weights["model"] == fake.bodies[-1]["model"]
    assert not {"weights", "steer"} & (by_weights.keys() | fake.bodies[-1].keys())
    answer = client.post("/v1/chat/completions", json=ask("aaa") | {"model": "mixture-01"})
    assert fake.bodies[-1]["model"] == "mixture-01"
    assert "x-mocae-weights" not in answer.headers
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["mocae", *(f"mixture-0{i}" for i in range(3))]
    assert client.get("/health").json() == {"status": "ok"}


def test_llama_cpp_gets_the_exact_weights(bundle: Bundle, tmp_path: Path, fake: FakeServer) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_manifest(folder, bundle, to="gguf", details=export_gguf(bundle, folder))
    transport = httpx.ASGITransport(app=fake.app)
    with TestClient(create_gateway(load_chooser(folder), "http://backend/v1", transport=transport)) as client:
        client.post("/v1/completions", json={"prompt": "ccc"})
    scales = fake.bodies[-1]["lora"]
    assert [entry["id"] for entry in scales] == [0, 1, 2]
    assert [entry["scale"] for entry in scales] == pytest.approx(exact_weights(bundle, "ccc")[0].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body is a list; it should be an object"),
        (b'{"messages": "hi"}', "messages: expected a list of objects"),
        (b'{"messages": []}', "none of the user"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "has no text"),
        (b'{"messages": [{"role": "user", "content": "a"}], "steer": {"all": "x"}}', "steer: expected an object"),
        (b'{"messages": [{"role": "user", "content": "a"}], "steer": {"nobody": 1}}', "unknown expert 'nobody'"),
        (b'{"messages": [{"role": "user", "content": "a"}], "steer": {"all": -1}}', "must be at least 0"),
        (b'{"messages": [{"role": "user", "content": "a"}], "steer": {"all": 1}, "weights": {}}', "give one of them"),
        (b'{"messages": [{"role": "user", "content": "a"}], "weights": {"all": NaN}}', "weights: expected an object"),
    ],
)
def test_what_cannot_be_routed_is_a_clear_400(body: bytes, message: str, client: TestClient, fake: FakeServer) -> None:
    answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert fake.bodies == []


def test_several_prompts_in_one_completion_are_refused(client: TestClient) -> None:
    answer = client.post("/v1/completions", json={"prompt": ["a", "b"]})
    assert answer.status_code == 400
    assert "several prompts need several requests" in answer.json()["error"]["message"]


def test_errors_of_the_backend_are_passed_on_and_silence_is_a_502(
    exported: Path, client: TestClient, fake: FakeServer
) -> None:
    assert client.post("/v1/completions", json={"prompt": "a", "model": "mixture-00"}).status_code == 200
    with TestClient(create_gateway(load_chooser(exported), "http://127.0.0.1:9/v1")) as alone:
        answer = alone.post("/v1/completions", json={"prompt": "a"})
    assert answer.status_code == 502
    assert "does not answer" in answer.json()["error"]["message"]
    with pytest.raises(ConfigError, match="not an address"):
        create_gateway(load_chooser(exported), "localhost:8000")


def test_over_the_network_too(exported: Path) -> None:
    with endpoint_server(lambda text, _: f"heard {text}") as server:
        with TestClient(create_gateway(load_chooser(exported), server.base_url)) as client:
            answer = client.post("/v1/chat/completions", json=ask("bbb"))
    assert answer.json()["choices"][0]["message"]["content"] == "heard bbb"
    assert server.bodies[0]["model"].startswith("mixture-")


def test_only_the_layers_below_the_router_are_kept(exported: Path) -> None:
    chooser = load_chooser(exported)
    assert len(chooser.base.model.model.layers) == 1


def test_what_does_not_fit_is_refused(exported: Path, bundle: Bundle, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", seed=5)
    with pytest.raises(ModelMismatchError, match="the one loaded is another"):
        load_chooser(exported, base_model=str(other))
    plain = tmp_path / "peft"
    plain.mkdir()
    write_manifest(plain, bundle, to="peft", details=export_peft(bundle, plain, weights={"all": 1.0}))
    with pytest.raises(ConfigError, match="an export to peft; the gateway stands in front of"):
        load_chooser(plain)
    (exported / "code_book.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"code_book\.json has changed since it was exported"):
        load_chooser(exported)
