"""Before the gateway listens, the backend proves that the experts act in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2 as httpx
import pytest

from mocae.errors import ServingError
from mocae.serving.canary import prove

URL = "http://backend/v1"
MIXTURES = {"no expert": {"lora": [0, 0]}, "kind": {"lora": [1, 0]}, "safe": {"lora": [0, 1]}}


def completion(text: str, *numbers: float) -> httpx.Response:
    logprobs = {"token_logprobs": list(numbers)} if numbers else None
    return httpx.Response(200, json={"choices": [{"text": text, "logprobs": logprobs, "id": "differs"}]})


def against(answer: Callable[[dict[str, Any]], httpx.Response], **more: Any) -> None:
    handler = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    with httpx.Client(transport=handler) as client:
        prove(client, URL, MIXTURES, **{"wait_s": 0.0, **more})


def test_experts_that_change_a_log_probability_act() -> None:
    against(lambda body: completion("the same words", -1.0 - 1e-6 * body["lora"][0], -2.0 * (1 + body["lora"][1])))


def test_words_alone_are_enough_where_they_differ() -> None:
    against(lambda body: completion(f"words of {body['lora']}"))


def test_an_adapter_that_was_lost_is_named() -> None:
    with pytest.raises(ServingError, match=r"with no expert and with safe alike.*do not act there"):
        against(lambda body: completion("words", -1.0 - body["lora"][0]))


def test_a_backend_that_ignores_the_weights_is_refused() -> None:
    with pytest.raises(ServingError, match=r"no expert and with kind, safe alike"):
        against(lambda _: completion("words", -1.0))


def test_without_log_probabilities_the_same_words_prove_nothing() -> None:
    with pytest.raises(ServingError, match=r"gives no log-probabilities.*--no-canary"):
        against(lambda _: completion("words"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (httpx.Response(404, json={"error": "no adapter kind"}), "refuses a request with no expert: status 404.*kind"),
        (httpx.Response(401), "MOCAE_BACKEND_KEY"),
        (httpx.Response(200, text="<html>"), "no completion"),
        (httpx.Response(200, json={"choices": []}), "no completion"),
        (httpx.Response(200, json=[]), "no completion"),
        (httpx.Response(503), "does not answer .503, it is loading. after 0 s.*--wait"),
    ],
)
def test_what_cannot_prove_it_is_refused_with_the_reason(answer: httpx.Response, message: str) -> None:
    with pytest.raises(ServingError, match=message):
        against(lambda _: answer)


def test_a_backend_that_is_starting_is_waited_for() -> None:
    starting: Iterator[httpx.Response] = iter([httpx.Response(503), httpx.Response(503)])
    lines: list[str] = []
    answers = lambda body: next(starting, None) or completion(f"words of {body['lora']}")  # noqa: E731
    against(answers, wait_s=30.0, on_wait=lines.append)
    assert lines == [f"waiting for the backend {URL} (503, it is loading)"]


def test_a_backend_that_is_not_there_is_told() -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with (
        httpx.Client(transport=httpx.MockTransport(gone)) as client,
        pytest.raises(ServingError, match=r"does not answer .refused. after 0 s; start it first"),
    ):
        prove(client, URL, MIXTURES, wait_s=0.0)
