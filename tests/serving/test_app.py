from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import torch

from mocae.errors import ConfigError
from mocae.models import LoadedBase, PlainModel, Twins
from mocae.policies import FixedPolicy, Policy
from mocae.serving import Limits
from mocae.serving.app import Settings
from mocae.serving.connection import Patience
from mocae.serving.errors import Closed
from mocae.serving.guard import Access
from mocae.serving.listening import origins_of
from mocae.serving.served import Served
from mocae.serving.wire.failure import as_api_error
from serving_for_tests import TinyArtifact, idle, live, served, with_router
from tiny import EOS, tiny_llama

NO_END = {str(EOS): -100.0}
KEY = "a-key-of-the-tests"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASKED = {"model": "alignx", "messages": [{"role": "user", "content": "who?"}]}


@pytest.fixture
def server(artifact: TinyArtifact) -> Iterator[httpx.Client]:
    settings = Settings(access=Access(body_bytes=100_000), max_tokens=64)
    with live(served(artifact), settings) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture
def client(server: httpx.Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


def chat(client: openai.OpenAI, **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "alignx", "messages": [{"role": "user", "content": "who?"}]}
    return client.chat.completions.create(**(asked | more))


def test_the_openai_client_gets_an_answer_with_its_routing(client: openai.OpenAI, artifact: TinyArtifact) -> None:
    reply = chat(client, logprobs=True, top_logprobs=2, max_tokens=6)
    [choice] = reply.choices
    assert (reply.object, reply.model, choice.message.role) == ("chat.completion", "alignx", "assistant")
    assert choice.routing["policy"] == "alignx"
    assert list(choice.routing["weights"]) == list(artifact.axes)
    assert sum(choice.routing["weights"].values()) == pytest.approx(1)
    assert len(choice.logprobs.content) <= reply.usage.completion_tokens <= 6
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    assert choice.finish_reason in ("length", "stop")


def test_streamed_equals_not_streamed(client: openai.OpenAI) -> None:
    whole = chat(client, n=2, temperature=1.0, seed=7, max_tokens=16)
    pieces: dict[int, str] = {0: "", 1: ""}
    last: dict[int, Any] = {}
    *chunks, usage = chat(
        client, n=2, temperature=1.0, seed=7, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        [choice] = chunk.choices
        pieces[choice.index] += choice.delta.content or ""
        last[choice.index] = choice
    assert pieces == {choice.index: choice.message.content for choice in whole.choices}
    assert pieces[0] != pieces[1]
    assert usage.usage == whole.usage
    for choice in whole.choices:
        assert last[choice.index].finish_reason == choice.finish_reason
        assert last[choice.index].routing == choice.routing


def test_steer_weights_and_policy_change_the_routing(client: openai.OpenAI) -> None:
    plain = chat(client).choices[0].routing["weights"]
    steered = chat(client, extra_body={"steer": {"honest": 4}}).choices[0].routing["weights"]
    total = plain["helpful"] + plain["harmless"] + 4 * plain["honest"]
    assert steered["honest"] == pytest.approx(4 * plain["honest"] / total, rel=1e-3)
    given = chat(client, extra_body={"weights": {"helpful": 1.5, "honest": -0.5}}).choices[0].routing
    assert given == {
        "policy": "weights",
        "weights": {"helpful": 1.5, "harmless": 0, "honest": -0.5},
        "confidence": None,
        "novelty": None,
    }
    other = chat(client, extra_body={"policy": "uniform"}).choices[0].routing
    assert other["weights"] == pytest.approx(dict.fromkeys(plain, 1 / 3), abs=1e-6)
    assert chat(client, model="expert:honest").choices[0].routing["weights"]["honest"] == 1


@pytest.mark.parametrize("model", ["alignx", "uniform", "sum", "base"])
def test_every_share_of_1_is_its_expert_whole_and_streamed(artifact: TinyArtifact, model: str) -> None:
    with live(served(with_router(artifact))) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for axis in artifact.axes:
            expert = chat(client, model=f"expert:{axis}", logprobs=True).choices[0]
            ends: list[dict[str, Any]] = [{"at_least": {axis: 1}}]
            ends += [{"prefer": {axis: 1e6}}] if model == "alignx" else []
            for words in ends:
                whole = chat(client, model=model, logprobs=True, extra_body=words).choices[0]
                assert [one.token for one in whole.logprobs.content] == [one.token for one in expert.logprobs.content]
                assert whole.message.content == expert.message.content
                assert whole.routing["weights"] == expert.routing["weights"]
                chunks = list(chat(client, model=model, stream=True, extra_body=words))
                assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expert.message.content
                assert chunks[-1].choices[0].routing["weights"] == expert.routing["weights"]
            assert chat(client, model=model, extra_body={"at_most": {axis: 0}}).choices[0].routing["weights"][axis] == 0
            plain = chat(client, model=model).choices[0]
            assert chat(client, model=model, extra_body={"at_least": {axis: 0}}).choices[0] == plain


def test_completions_take_texts_and_tokens(client: openai.OpenAI, artifact: TinyArtifact) -> None:
    text = "Q: who?\nA:"
    tokens = artifact.mixture.base.tokenizer(text).input_ids
    asked: dict[str, Any] = {"model": "alignx", "max_tokens": 8}
    both = client.completions.create(prompt=[text, "Q: 2"], logprobs=1, **asked)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == client.completions.create(prompt=tokens, **asked).choices[0].text
    assert both.choices[0].text == client.completions.create(prompt=[tokens, tokens], **asked).choices[1].text
    streamed = client.completions.create(prompt=text, stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == both.choices[0].text
    probs = both.choices[0].logprobs
    assert probs is not None
    assert probs.tokens is not None
    assert len(probs.tokens) == len(probs.token_logprobs or ()) == len(probs.text_offset or ())
    # A chat is the same text in the run's format, and its answer without the spaces around it.
    assert chat(client, max_tokens=8).choices[0].message.content == both.choices[0].text.strip()


def test_models_are_policies_and_experts(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["alignx", "uniform", "sum", "base", "expert:helpful", "expert:harmless", "expert:honest"]
    assert client.models.retrieve("expert:honest").id == "expert:honest"
    with pytest.raises(openai.NotFoundError, match=r"unknown model 'alingx'.*Did you mean 'alignx'\?"):
        client.models.retrieve("alingx")


def test_a_system_can_be_put_first(artifact: TinyArtifact) -> None:
    names = list(artifact.about)
    assert list(Served(artifact).models) == names
    assert list(Served(artifact, first="sum").models) == ["sum", *(name for name in names if name != "sum")]


def test_a_router_tells_how_sure_it_was_unless_it_was_steered(artifact: TinyArtifact) -> None:
    router = with_router(artifact).mixture.policy.router
    with live(served(artifact)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        routing = chat(client).choices[0].routing
        *_, last = chat(client, stream=True)
        steered = chat(client, extra_body={"steer": {"honest": 2}}).choices[0].routing
        assert chat(client, model="base").choices[0].routing["confidence"] is None
        text = httpx.get(f"{url}/metrics").text
    assert router.calibration == "chances"
    assert 0 < routing["confidence"] < 1
    assert 0 <= routing["novelty"] <= 1
    assert last.choices[0].routing["confidence"] == pytest.approx(routing["confidence"], abs=1e-6)
    assert steered["confidence"] is None
    for name in ("mocae_router_confidence", "mocae_prompt_novelty"):
        assert f'{name}_count{{model="alignx"}} 2.0' in text.splitlines()


def test_usage_and_metrics_tell_how_much_of_a_prompt_was_known(client: openai.OpenAI, server: httpx.Client) -> None:
    begins = "answer in short words, never in long ones, "
    known = [
        chat(client, messages=[{"role": "user", "content": begins + question}], n=2, max_tokens=2).usage
        for question in ("who?", "what?")
    ]
    assert [usage.prompt_tokens_details.cached_tokens for usage in known] == [0, 32]
    assert 'mocae_cached_prompt_tokens_total{model="alignx"} 64.0' in server.get("/metrics").text.splitlines()


def test_metrics_tell_latency_tokens_queue_and_routing(client: openai.OpenAI, server: httpx.Client) -> None:
    chat(client)
    chat(client, extra_body={"steer": {"honest": 2}})
    server.get("/strange/path")
    text = server.get("/metrics").text
    for line in (
        'mocae_requests_total{path="/v1/chat/completions",status="200"} 2.0',
        'mocae_requests_total{path="other",status="404"} 1.0',
        "mocae_first_token_seconds_count 2.0",
        "mocae_queue_length 0.0",
        "mocae_running 0.0",
        'mocae_routing_weight_count{expert="honest"} 2.0',
    ):
        assert line in text.splitlines()
    assert 'mocae_generated_tokens_total{model="alignx"}' in text
    assert "/strange" not in text
    assert server.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0}


def wrong(**changes: Any) -> str:
    return json.dumps(ASKED | changes)


BAD: list[tuple[str, str, int, str]] = [
    ("{", CHAT, 400, "not JSON"),
    ("", CHAT, 400, "missing"),
    ("[]", CHAT, 400, "dict"),
    ("[" * 50_000, CHAT, 400, ""),
    ('{"model": "alignx", "messages": "\xff"', CHAT, 400, "not JSON"),
    ('{"model": "alignx", "messages": [{"role": "user", "content": "\\ud800"}]}', CHAT, 400, ""),
    (wrong(**{"\ud800": 1}), CHAT, 400, "unable to parse raw data as a unicode string"),
    (wrong(steer={"\ud800": 1}), CHAT, 400, "unknown expert"),
    (wrong(steer={"\ud800": -1}), CHAT, 400, "greater"),
    (wrong(model="\ud800"), CHAT, 400, "unable to parse raw data as a unicode string"),
    (wrong(model=7), CHAT, 400, "model: Input should be a valid string, got 7"),
    (wrong(model="alingx"), CHAT, 404, "Did you mean 'alignx'?"),
    (wrong(policy="oracle"), CHAT, 400, "unknown policy 'oracle'"),
    (wrong(model=None), CHAT, 400, "model"),
    (wrong(messages=[]), CHAT, 400, "messages"),
    (wrong(messages=[{"role": "user", "content": "  "}]), CHAT, 400, "messages[0] is empty"),
    (wrong(messages=[{"role": "robot", "content": "x"}]), CHAT, 400, "role"),
    (wrong(messages=[{"role": "assistant", "content": "x"}]), CHAT, 400, "the last message has role 'assistant'"),
    (wrong(messages=[{"role": "user", "content": "x"}] * 2), CHAT, 400, "user and assistant in turn"),
    (wrong(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), CHAT, 400, "messages"),
    (wrong(messages=[{"role": "user", "content": "x" * 300}]), CHAT, 400, "the model's context is 256 tokens"),
    (wrong(messages=[{"role": "user", "content": "x" * 60_000}]), CHAT, 400, "the model's context is 256 tokens"),
    (wrong(messages=[{"role": "user", "content": "x" * 230}], max_tokens=40), CHAT, 400, "40 for the answer"),
    (wrong(steer={"honesty": 2}), CHAT, 400, "unknown expert 'honesty'"),
    (wrong(steer={"honest": -1}), CHAT, 400, "greater than or equal to 0"),
    (wrong(steer={"honest": True}), CHAT, 400, "valid number"),
    (wrong(steer={"honest": "2"}), CHAT, 400, "valid number"),
    (wrong(steer={"honest": float("nan")}), CHAT, 400, "finite"),
    (wrong(weights={"honest": float("nan")}), CHAT, 400, "finite"),
    (wrong(weights={"honest": float("inf")}), CHAT, 400, "finite"),
    (wrong(weights={"honest": 1e300}), CHAT, 400, "less than or equal"),
    (wrong(weights={"nobody": 1}), CHAT, 400, "unknown expert 'nobody'"),
    (wrong(weights={"honest": 1}, steer={"honest": 1}), CHAT, 400, "give one of them"),
    (wrong(weights={}, at_most={"honest": 1}), CHAT, 400, "give one of them"),
    (wrong(at_least={"honest": 1.1}), CHAT, 400, "at_least.honest: Input should be less than or equal to 1"),
    (
        wrong(at_least={"honest": 0.7, "helpful": 0.7}),
        CHAT,
        400,
        "at_least: the shares sum to 1.4; accepted: at most 1",
    ),
    (wrong(at_least={"honest": 0.7}, at_most={"honest": 0.5}), CHAT, 400, "at_most: at most 0.5 of 'honest', and at"),
    (wrong(at_most={"nobody": 0.5}), CHAT, 400, "unknown expert 'nobody'"),
    (wrong(model="uniform", prefer={"honest": 1}), CHAT, 400, "prefer: got {'honest': 1.0} for a system without"),
    (wrong(weights={"honest": 1}, policy="base"), CHAT, 400, "give one of policy and weights"),
    (wrong(max_tokens=-1), CHAT, 400, "max_tokens"),
    (wrong(max_tokens=0), CHAT, 400, "max_tokens"),
    (wrong(max_tokens=65), CHAT, 400, "at most 64 tokens"),
    (wrong(max_tokens=1.5), CHAT, 400, "integer"),
    (wrong(max_tokens="7"), CHAT, 400, "integer"),
    (wrong(max_tokens=10**30), CHAT, 400, ""),
    (wrong(max_tokens=5, max_completion_tokens=6), CHAT, 400, "give one of them"),
    (wrong(temperature=-0.1), CHAT, 400, "temperature"),
    (wrong(temperature=float("nan")), CHAT, 400, "temperature"),
    (wrong(top_p=0), CHAT, 400, "top_p"),
    (wrong(n=0), CHAT, 400, "n:"),
    (wrong(n=1000), CHAT, 400, "n:"),
    (wrong(stop=["a"] * 5), CHAT, 400, "stop"),
    (wrong(stop=""), CHAT, 400, "stop"),
    (wrong(seed=2**70), CHAT, 400, "seed"),
    (wrong(stream="yes"), CHAT, 400, "stream"),
    (wrong(logit_bias={"100000": 1}), CHAT, 400, "token 100000 does not exist"),
    (wrong(logit_bias={"x": 1}), CHAT, 400, "logit_bias"),
    (wrong(functions=[]), CHAT, 400, "functions: this field is not known here"),
    (wrong(tools=[{"type": "function"}]), CHAT, 400, "tools"),
    (wrong(response_format={"type": "json_object"}), CHAT, 400, "response_format.type"),
    (wrong(messages=[{"role": "user", "content": None}]), CHAT, 400, "messages.0.content"),
    (wrong(messages=[{"role": "user"}]), CHAT, 400, "messages.0.content"),
    (wrong(messages=[{"role": "user", "content": "x", "tool_calls": [{}]}]), CHAT, 400, "messages.0.tool_calls"),
    (wrong(messages=[{"role": "user", "content": "x", "refusal": "no"}]), CHAT, 400, "this field is not known here"),
    (wrong(messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]), CHAT, 400, "the last"),
    (wrong(**{f"x{i}": i for i in range(2000)}), CHAT, 400, "x0: this field is not known here"),
    (wrong(weights={str(i): i for i in range(2000)}), CHAT, 400, "2000 entries, at most 256"),
    ('{"model": "alignx"}', TEXT, 400, "prompt: missing"),
    ('{"model": "alignx", "prompt": ""}', TEXT, 400, "prompt is empty"),
    ('{"model": "alignx", "prompt": []}', TEXT, 400, "prompt"),
    ('{"model": "alignx", "prompt": [[]]}', TEXT, 400, "prompt"),
    ('{"model": "alignx", "prompt": [999999]}', TEXT, 400, "token 999999 does not exist"),
    ('{"model": "alignx", "prompt": [-1]}', TEXT, 400, "prompt"),
    ('{"model": "alignx", "prompt": "x", "echo": true}', TEXT, 400, "echo"),
]


def shaped(response: httpx.Response) -> dict[str, Any]:
    """The error of a response, whose body is exactly the OpenAI shape and holds no traceback."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    assert 'File "' not in response.text
    assert "0x" not in response.text  # no address of an object
    assert "function-" not in response.text  # no name of a validator
    return body["error"]  # type: ignore[no-any-return]


def test_bad_requests_are_refused_in_the_openai_shape_and_the_server_goes_on(server: httpx.Client) -> None:
    seen = []
    for body, path, _, message in BAD:
        content = body.encode("latin-1")
        response = server.post(path, content=content, headers={"Content-Type": "application/json"})
        error = shaped(response)
        seen.append((body[:60], response.status_code, message in error["message"] or error["message"]))
    assert seen == [(body[:60], status, True) for body, _, status, _ in BAD]
    assert server.post(CHAT, json=ASKED).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("GET", "/nowhere", {}, b"", 404),
        ("GET", CHAT, {}, b"", 405),
        ("DELETE", "/v1/models", {}, b"", 405),
        ("POST", CHAT, {"Content-Type": "text/plain"}, json.dumps(ASKED).encode(), 415),
        ("POST", CHAT, {}, json.dumps(ASKED).encode(), 415),
        ("POST", CHAT, {"Content-Type": "application/json"}, b" " * 10_000_000, 413),
        ("GET", "/health", {"Host": "evil.example:80"}, b"", 403),
    ],
)
def test_what_never_reaches_the_model(
    artifact: TinyArtifact, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    access = Access(hosts=frozenset({"127.0.0.1"}), body_bytes=100_000)
    with live(served(artifact), Settings(access=access)) as url:
        response = httpx.request(method, f"{url}{path}", headers=headers, content=content, timeout=60)
        assert response.status_code == status
        shaped(response)


def test_a_body_without_length_is_counted_too(server: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 10_000

    response = server.post(CHAT, content=endless(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert shaped(response)["code"] == "request_too_large"


def test_a_body_that_does_not_come_is_not_waited_for(artifact: TinyArtifact) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with live(served(artifact), Settings(access=Access(body_s=0.1))) as url:
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=30) as connection:
            connection.sendall(head.encode() + b'{"model"')
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


def test_closing_is_503_and_says_when_to_come_back() -> None:
    failed = as_api_error(Closed("the server is shutting down"))
    assert (failed.status, failed.headers, failed.body.error.code) == (503, {"Retry-After": "5"}, "shutting_down")


def test_keys_open_everything_but_health(artifact: TinyArtifact) -> None:
    with live(served(artifact), Settings(access=Access(keys=[KEY, "another-key-of-the-tests"]))) as url:
        for headers, code in (({}, "missing_api_key"), ({"Authorization": f"Bearer {KEY}x"}, "invalid_api_key")):
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
                refused = httpx.get(f"{url}{path}", headers=headers)
                assert (refused.status_code, shaped(refused)["code"]) == (401, code)
                assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert httpx.get(f"{url}/health").status_code == 200
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError, match="not known here"):
                chat(client)
            client.api_key = KEY
            assert chat(client).choices


def test_a_full_queue_is_429_with_retry_after(artifact: TinyArtifact) -> None:
    settings = Settings(limits=Limits(batch_size=1, queue_size=1))
    with live(served(artifact), settings) as url, httpx.Client(base_url=url) as client:
        long = ASKED | {"max_tokens": 200, "stream": True, "n": 2, "logit_bias": NO_END}
        with client.stream("POST", CHAT, json=long) as stream:
            lines = stream.iter_lines()  # kept: dropped, it would close the connection
            next(lines)
            refused = httpx.post(f"{url}{CHAT}", json=ASKED | {"n": 2})
        assert (refused.status_code, shaped(refused)["code"]) == (429, "queue_full")
        assert int(refused.headers["Retry-After"]) >= 1
        too_many = httpx.post(f"{url}{CHAT}", json=ASKED | {"n": 3})
        assert (too_many.status_code, shaped(too_many)["param"]) == (400, "n")


def test_what_clients_send_without_need_is_accepted(client: openai.OpenAI) -> None:
    plain = chat(client, max_tokens=4)
    more: dict[str, Any] = {"tools": [], "response_format": {"type": "text"}, "parallel_tool_calls": False, "user": "u"}
    assert chat(client, max_tokens=4, **more).choices == plain.choices


def test_what_the_server_sends_it_takes_back(client: openai.OpenAI) -> None:
    first = {"role": "user", "content": "who?"}
    message = chat(client, max_tokens=4).choices[0].message
    again = chat(client, max_tokens=4, messages=[first, message, first]).choices[0].message.content
    text = {"role": "assistant", "content": message.content}
    nothing: dict[str, Any] = dict.fromkeys(("refusal", "audio", "function_call", "reasoning_content", "a_new_field"))
    for sent in (message.model_dump(), text | nothing, text | {"tool_calls": [], "annotations": [], "name": None}):
        assert chat(client, max_tokens=4, messages=[first, sent, first]).choices[0].message.content == again
    empty = chat(client, max_tokens=4, stop=[message.content[:1]]).choices[0].message
    assert empty.content == ""
    without = {"role": "assistant", "refusal": None}
    answers = {
        chat(client, max_tokens=4, messages=[first, sent, first], extra_body={"audio": None}).choices[0].message.content
        for sent in (empty, without, without | {"content": None})
    }
    assert len(answers) == 1


def test_a_page_may_ask_from_an_origin_that_is_named_and_from_no_other(artifact: TinyArtifact) -> None:
    page, other = "http://localhost:3000", "http://localhost:3001"
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    with live(served(artifact), Settings(access=Access([KEY], origins=[page]))) as url, httpx.Client() as client:
        before = client.options(f"{url}{CHAT}", headers={"Origin": page} | asks)
        assert (before.status_code, before.headers["Access-Control-Allow-Origin"]) == (200, page)
        assert "authorization" in before.headers["Access-Control-Allow-Headers"]
        refused = client.post(f"{url}{CHAT}", json=ASKED, headers={"Origin": page})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, page)
        key = {"Authorization": f"Bearer {KEY}"}
        for stream in (False, True):
            answer = client.post(f"{url}{CHAT}", json=ASKED | {"stream": stream}, headers={"Origin": page} | key)
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, page)
        assert (
            "Access-Control-Allow-Origin"
            not in client.options(f"{url}{CHAT}", headers={"Origin": other} | asks).headers
        )
    with live(served(artifact)) as url:
        assert httpx.options(f"{url}{CHAT}", headers={"Origin": page} | asks).status_code == 405


def test_an_origin_is_a_scheme_and_a_host() -> None:
    assert origins_of(["http://LocalHost:3000", "https://chat.example"]) == [
        "http://localhost:3000",
        "https://chat.example",
    ]
    for wrong_one in ("*", "localhost:3000", "http://localhost:3000/", "http://a@b", "http://", "null", "http://x:y"):
        with pytest.raises(ConfigError, match="not an origin; accepted"):
            origins_of([wrong_one])


def test_an_answer_that_fails_is_not_taken_for_a_client_that_left(artifact: TinyArtifact) -> None:
    artifact.mixture.policy = FixedPolicy(torch.tensor([3e38, 0.0, 0.0]))
    with live(served(artifact)) as url:
        for more in ({}, {"stream": True}, {"n": 3}, {"n": 3, "stream": True}):
            assert httpx.post(f"{url}{CHAT}", json=ASKED | more).status_code == 400
        assert "mocae_cancelled_total 0.0" in httpx.get(f"{url}/metrics").text.splitlines()


def test_a_client_that_leaves_is_given_up(artifact: TinyArtifact) -> None:
    long = json.dumps(ASKED | {"max_tokens": 240, "logit_bias": NO_END}).encode()
    with live(served(artifact)) as url, httpx.Client(base_url=url) as client:
        for body in (long, long[:-1] + b', "stream": true}'):
            head = (
                f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
                connection.sendall(head.encode() + body)
                while client.get("/health").json()["running"] == 0:
                    time.sleep(0.005)
            assert idle(client)
        text = client.get("/metrics").text
        assert "mocae_cancelled_total 2.0" in text.splitlines()
        assert "mocae_answers_total{" not in text


def test_a_client_that_stops_reading_is_dropped(artifact: TinyArtifact) -> None:
    much = {"max_tokens": 240, "logit_bias": NO_END, "n": 16, "stream": True, "logprobs": True, "top_logprobs": 20}
    body = json.dumps(ASKED | much).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        live(served(artifact), patience=Patience(stall_s=0.2)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", client.base_url.port))
            connection.sendall(head.encode() + body)
            while client.get("/health").json()["running"] == 0:
                time.sleep(0.005)
            assert idle(client, within_s=30)  # while the connection is open
        assert "mocae_cancelled_total 16.0" in client.get("/metrics").text.splitlines()
        assert client.post(CHAT, json=ASKED).status_code == 200


def test_a_request_out_of_time_is_504_and_a_stream_ends_with_the_error(artifact: TinyArtifact) -> None:
    with live(served(artifact), Settings(timeout_s=0.05)) as url:
        late = httpx.post(f"{url}{CHAT}", json=ASKED | {"max_tokens": 240, "logit_bias": NO_END})
        assert (late.status_code, shaped(late)["code"]) == (504, "timeout")
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            with pytest.raises(openai.APIError, match="no answer within"):
                list(chat(client, max_tokens=240, stream=True, logit_bias=NO_END))


class Broken(Policy):
    def route(self, batch: Any) -> Any:
        raise RuntimeError("secret detail")


def test_a_defect_is_500_without_details(artifact: TinyArtifact) -> None:
    artifact.mixture.policy = Broken()
    with live(served(artifact)) as url:
        for stream in (False, True):
            failed = httpx.post(f"{url}{CHAT}", json=ASKED | {"stream": stream})
            assert (failed.status_code, shaped(failed)["code"]) == (500, "internal")
            assert "secret" not in failed.text
        assert httpx.post(f"{url}{CHAT}", json=ASKED | {"model": "base"}).status_code == 200


def test_another_system_answers_beside_the_bank(artifact: TinyArtifact) -> None:
    with pytest.raises(ConfigError, match="something is attached to the base model; make twins before"):
        Twins(artifact.base)
    own = LoadedBase(tiny_llama(max_position_embeddings=256), artifact.base.tokenizer)
    artifact.others = {"brief": PlainModel(own, injection="Be brief.")}
    with live(served(artifact)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert "brief" in [model.id for model in client.models.list()]
        answers = [chat(client, model=name).choices[0] for name in ("brief", "base", "brief")]
        with pytest.raises(openai.BadRequestError, match="'brief' has no weights that could be steered or given"):
            chat(client, model="brief", extra_body={"steer": {"honest": 2}})
        pieces = [c.choices[0].delta.content or "" for c in chat(client, model="brief", stream=True) if c.choices]
    assert answers[0].message.content == answers[2].message.content == "".join(pieces)
    assert answers[0].message.content != answers[1].message.content  # the instruction was read
    assert answers[0].routing["weights"] == {}
