"""Proof that the experts act in a backend: the same prompt is answered otherwise with each of them.

A backend that ignores the weights or the names of mixtures, or has lost an adapter, answers every request with status
200 and the base model's words. Nothing in those answers says so, so it is asked for before anything is passed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx2 as httpx

from mocae.errors import ServingError

__all__ = ["prove"]

_PROMPT = "Q: What should I do today?\nA:"
_ASKED = {"prompt": _PROMPT, "max_tokens": 16, "temperature": 0, "seed": 0, "logprobs": 5}
_PAUSE_S = 0.5


def prove(
    client: httpx.Client,
    url: str,
    mixtures: Mapping[str, Mapping[str, Any]],
    *,
    wait_s: float,
    on_wait: Callable[[str], None] = lambda _: None,
) -> None:
    """Do nothing if the backend answers one prompt otherwise for every mixture.

    Text and log-probabilities are compared, where the backend gives them.

    Args:
        client: sends the backend's headers.
        url: of the backend, up to and with `/v1`.
        mixtures: name -> fields of a request's body that choose it; the first is what the others must differ from.
        wait_s: how long to wait for a backend that is still starting.
        on_wait: called once with a line for people, if there is something to wait for.

    Raises:
        ServingError: it does not answer in time, refuses a mixture, or answers two of them alike.
    """
    ends, waited = time.monotonic() + wait_s, False
    answers: dict[str, _Answer] = {}
    for name, fields in mixtures.items():
        while True:
            try:
                answers[name] = _ask(client, url, name, fields)
                break
            except (httpx.TransportError, _Starting) as error:
                reason = str(error) or type(error).__name__
                if time.monotonic() >= ends:
                    raise ServingError(
                        f"the backend {url} does not answer ({reason}) after {wait_s:g} s; start it first, or give it "
                        "longer with --wait"
                    ) from error
                if not waited:
                    on_wait(f"waiting for the backend {url} ({reason})")
                    waited = True
                time.sleep(_PAUSE_S)
    first, *others = answers
    alike = ", ".join(name for name in others if answers[name] == answers[first])
    if alike and not answers[first].numbers:
        raise ServingError(
            f"the backend {url} gives no log-probabilities, and one prompt has the same text with {first} and with "
            f"{alike}: nothing proves that the experts act there. --no-canary goes on without proof"
        )
    if alike:
        raise ServingError(
            f"the backend {url} answers one prompt with {first} and with {alike} alike, to the last log-probability: "
            "these experts do not act there. Start it with the adapters of this export, as its README.md says"
        )


class _Answer(NamedTuple):
    """What a backend said, and the log-probabilities it gave."""

    text: str
    numbers: tuple[float, ...]


class _Starting(Exception):
    """The backend is there and has not loaded its model yet."""


def _ask(client: httpx.Client, url: str, name: str, fields: Mapping[str, Any]) -> _Answer:
    answer = client.post(f"{url}/completions", json={**_ASKED, **fields})
    if answer.status_code == 503:
        raise _Starting("503, it is loading")
    if answer.status_code != 200:
        raise ServingError(
            f"the backend {url} refuses a request with {name}: status {answer.status_code}, {answer.text[:200]!r}. It "
            "needs the adapters of this export (its README.md says how), and its key, if any, in MOCAE_BACKEND_KEY"
        )
    try:
        choice = answer.json()["choices"][0]
        return _Answer(str(choice["text"]), tuple(_numbers(choice.get("logprobs"))))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServingError(
            f"the backend {url} answers with what is no completion: {answer.text[:200]!r}; it must speak the OpenAI API"
        ) from error


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers somewhere in a value: log-probabilities, in whichever of the two forms they come."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _numbers(one)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one)
