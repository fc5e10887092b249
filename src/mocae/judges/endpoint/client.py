"""Many requests to one OpenAI-compatible endpoint: in parallel, with retries, nothing lost and nothing asked twice."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mocae.errors import JudgeError
from mocae.judges.endpoint.cache import CachedReply, ReplyCache, reply_key

__all__ = ["Asked", "Endpoint", "EndpointClient", "Messages", "Usage"]

Messages = Sequence[Mapping[str, str]]

_NO_USE = (400, 401, 403, 404, 422)
"""Statuses that asking again does not change."""


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
        give_up_after: requests that may fail in a row, with all their retries, before the endpoint counts as gone.
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one request: `text` is None when it failed, and `error` says how."""

    text: str | None
    error: str = ""
    cached: bool = False
    seconds: float = 0.0
    n_tokens: int = 0


@dataclass(slots=True)
class Usage:
    """What asking has taken so far.

    Attributes:
        requests: sent, retries among them.
        answered: replies received.
        failed: requests without a reply after all retries.
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


class EndpointClient:
    """Asks one endpoint, through the `openai` client.

    Args:
        endpoint: where and how.
        cache: file of replies; None keeps them in memory only.
    """

    def __init__(self, endpoint: Endpoint, *, cache: Path | None = None) -> None:
        from openai import OpenAI

        self.endpoint = endpoint
        self.usage = Usage()
        self._new: set[str] = set()
        self._cache = ReplyCache(cache)
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._jitter = random.Random(0)
        # None lets the client look into the environment; the client insists on a key where none is wanted.
        from_environment = endpoint.base_url is None and "OPENAI_API_KEY" in os.environ
        key = endpoint.api_key or (None if from_environment else "none")
        self._client = OpenAI(base_url=endpoint.base_url, api_key=key, timeout=endpoint.timeout_s, max_retries=0)
        weakref.finalize(self, self._client.close)  # its connections, which would stay open with nobody to use them

    def ask(self, requests: Sequence[Messages], *, parameters: Mapping[str, Any], tag: str = "") -> list[Asked]:
        """Return what came of each request, in order; equal requests are sent once.

        Args:
            requests: messages of each.
            parameters: of the completion (temperature, max_tokens, seed, ...).
            tag: anything else the reply depends on, such as the hash of a prompt file; part of the cache key.

        Raises:
            JudgeError: the endpoint refuses to be used (key, model, parameters), or nothing has come from it for many
                requests. Replies received until then are in the cache.
        """
        keys = [self.key(messages, parameters, tag) for messages in requests]
        futures: dict[str, Future[Asked]] = {}
        found: dict[str, Asked] = {}
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            try:
                for key, messages in zip(keys, requests, strict=True):
                    kept = self._cache.get(key)
                    if key in found or key in futures:
                        continue
                    if kept is not None:
                        found[key] = Asked(kept.text, cached=True, n_tokens=kept.completion_tokens)
                        self.usage.cached += 1
                    else:
                        futures[key] = pool.submit(self._ask_one, key, messages, parameters)
                found |= {key: future.result() for key, future in futures.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[key] for key in keys]

    def usage_before(self, requests: Sequence[Messages], *, parameters: Mapping[str, Any], tag: str = "") -> Usage:
        """Return what the kept replies to these requests took that came before this client was made.

        Only replies are kept: requests that failed then, and retries, are in no number.
        """
        before = Usage()
        for key in {self.key(messages, parameters, tag) for messages in requests} - self._new:
            reply = self._cache.get(key)
            if reply is not None:
                self._add(before, reply)
        before.requests = before.answered
        return before

    def key(self, messages: Messages, parameters: Mapping[str, Any], tag: str) -> str:
        """Return the identity of a request in the cache: server, model, prompt file, parameters and text."""
        asked = {"base_url": self.endpoint.base_url, "model": self.endpoint.model, "tag": tag}
        return reply_key({**asked, "parameters": dict(parameters), "messages": [dict(m) for m in messages]})

    def _ask_one(self, key: str, messages: Messages, parameters: Mapping[str, Any]) -> Asked:
        started = time.perf_counter()
        error = ""
        for attempt in range(self.endpoint.max_retries + 1):
            with self._lock:
                self.usage.requests += 1
            wait: float | None = None
            try:
                reply = self._send(messages, parameters)
            except Exception as failure:  # the server and the client may raise anything; the kind decides
                status = getattr(failure, "status_code", None)
                error = _told(failure)
                if status in _NO_USE:
                    raise JudgeError(
                        f"endpoint {self.where}: model {self.endpoint.model!r}: {error}; check base_url, model, "
                        "api_key and parameters"
                    ) from failure
                wait = _retry_after(failure)
            else:
                self._count(key, reply)
                self._cache.put(key, reply)
                seconds = time.perf_counter() - started
                return Asked(reply.text, seconds=seconds, n_tokens=reply.completion_tokens)
            if attempt < self.endpoint.max_retries:
                time.sleep(wait if wait is not None else self._backoff(attempt))
        return self._failed(error, time.perf_counter() - started)

    def _send(self, messages: Messages, parameters: Mapping[str, Any]) -> CachedReply:
        asked: list[Any] = [dict(m) for m in messages]
        completion: Any = self._client.chat.completions.create(
            model=self.endpoint.model, messages=asked, **dict(parameters)
        )
        # A server may answer 200 with anything; only text in the place of the text is a reply.
        choices = getattr(completion, "choices", None)
        text = choices[0].message.content if choices else None
        if not isinstance(text, str):
            raise ValueError("the reply holds no choices[0].message.content")
        usage = getattr(completion, "usage", None)
        prompt, completed = (getattr(usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return CachedReply(text, int(prompt), int(completed))

    def _count(self, key: str, reply: CachedReply) -> None:
        with self._lock:
            self._failed_in_a_row = 0
            self._new.add(key)
            self._add(self.usage, reply)

    def _add(self, usage: Usage, reply: CachedReply) -> None:
        end = self.endpoint
        usage.answered += 1
        usage.prompt_tokens += reply.prompt_tokens
        usage.completion_tokens += reply.completion_tokens
        if end.prompt_price is not None and end.completion_price is not None:
            spent = reply.prompt_tokens * end.prompt_price + reply.completion_tokens * end.completion_price
            usage.cost = (usage.cost or 0.0) + spent / 1e6

    def _failed(self, error: str, seconds: float) -> Asked:
        with self._lock:
            self.usage.failed += 1
            self._failed_in_a_row += 1
            gone = self._failed_in_a_row >= self.endpoint.give_up_after
        if gone:
            raise JudgeError(
                f"endpoint {self.where}: {self.endpoint.give_up_after} requests in a row got no reply (last: "
                f"{error}); start it or check base_url, the same command goes on with what is missing"
            )
        return Asked(None, error, seconds=seconds)

    @property
    def where(self) -> str:
        """URL of the server, in words where it is the client's default."""
        return self.endpoint.base_url or "(default of the openai client)"

    def _backoff(self, attempt: int) -> float:
        return min(60.0, self.endpoint.backoff_s * 2.0**attempt) * (0.75 + 0.5 * self._jitter.random())


def _told(failure: Exception) -> str:
    """Return what went wrong in one short line, without the server's page."""
    status = getattr(failure, "status_code", None)
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}{f' {status}' if status else ''}: {text[:160]}"


def _retry_after(failure: Exception) -> float | None:
    """Return the seconds a server asks to wait, at most a minute; None where it does not say."""
    headers = getattr(getattr(failure, "response", None), "headers", {})
    try:
        return min(60.0, max(0.0, float(headers["retry-after"])))
    except (KeyError, TypeError, ValueError):
        return None
