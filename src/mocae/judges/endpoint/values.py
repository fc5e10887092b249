"""What is asked of an endpoint and what comes back, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mocae.judges.endpoint.cache import CachedReply
from mocae.judges.endpoint.refusals import Refusal

__all__ = ["Asked", "Endpoint", "Messages", "Usage"]

Messages = Sequence[Mapping[str, Any]] | str
"""Messages of a chat, or a text that the model continues as it stands."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        base_url: of the server, such as "http://127.0.0.1:8000/v1"; None: the openai client's default.
        model: name the server knows the model by.
        api_key: None: none where `base_url` names a server (local ones need none); without a `base_url`, for OpenAI
            itself, the environment variable OPENAI_API_KEY. No other server is ever sent that one.
        concurrency: requests in flight at once.
        timeout_s: longest silence of the server, in seconds.
        max_retries: attempts after the first one fails.
        backoff_s: wait before the first retry; doubles, up to a minute, unless the server says how long.
        give_up_after: requests that may fail in a row, with all their retries, before the endpoint counts as gone,
            see `EndpointClient.ask`.
        parameters: of every completion, over those that a caller asks for; None leaves one out.
        prompt_price: per million prompt tokens, in any currency.
        completion_price: per million completion tokens.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 8
    timeout_s: float = 60.0
    max_retries: int = 5
    backoff_s: float = 1.0
    give_up_after: int = 16
    prompt_price: float | None = None
    completion_price: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one request.

    Attributes:
        text: of the reply; None when there is none.
        error: why there is none, in the server's words.
        cached: the reply was there already.
        seconds: time it took.
        n_tokens: of the reply.
        failure: what that says; all but "filtered" and "refused" may be asked again.
        cut: the reply ended at its limit of tokens.
        first: log-probabilities of the likeliest first tokens, where they were asked for and the server tells them.
    """

    text: str | None
    error: str = ""
    cached: bool = False
    seconds: float = 0.0
    n_tokens: int = 0
    failure: Refusal | None = None
    cut: bool = False
    first: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, reply: CachedReply, *, cached: bool = False, seconds: float = 0.0) -> Asked:
        """Return what came of a request that got a reply."""
        cut = reply.finish == "length"
        return cls(reply.text, "", cached, seconds, reply.completion_tokens, None, cut, reply.first)


@dataclass(slots=True)
class Usage:
    """What asking has taken so far.

    Attributes:
        requests: sent, retries among them.
        answered: replies received.
        failed: requests without a reply after all retries, what a filter withheld among them.
        cached: replies taken from the cache.
        prompt_tokens: as the server counts them, cached replies left out.
        completion_tokens: likewise.
        cost: by the prices given; None without prices.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
