"""Many requests to one OpenAI-compatible endpoint: in parallel, with retries, nothing lost and nothing asked twice.

Retries are ours: those of the openai client have a fixed wait, retry an exhausted quota, do not ask again for a reply
without text, and cannot be counted or stopped once the server is gone; using them would save a dozen lines.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mocae.errors import JudgeError
from mocae.judges.endpoint.cache import CachedReply, ReplyCache, reply_key
from mocae.judges.endpoint.refusals import (
    ContentFiltered,
    NoText,
    Refusal,
    refusal,
    refused_parameter,
    server_word,
)
from mocae.judges.endpoint.values import Asked, Endpoint, Messages, Usage
from mocae.progress import say
from mocae.texts import whole_text

__all__ = ["EndpointClient"]

_REACH_S = 5.0
"""Silence after which an endpoint counts as busy when it is asked whether it is there."""
_OTHER_WORD = {"max_tokens": "max_completion_tokens"}


class EndpointClient:
    """Asks one endpoint, through the `openai` client.

    `worked` says whether a reply has ever come, in this process or one before.

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
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._failed_in_a_row = 0
        self.worked = len(self._cache) > 0
        self._reached = False
        self._refused: set[str] = set()  # parameters that the server does not take
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

        A parameter that the server does not take is renamed or left out, once for all requests, and that is told. What
        is wrong with one request, its content or its length, costs this request only.

        Raises:
            JudgeError: the endpoint refuses to be used (key, model), nothing has ever come from it for `give_up_after`
                requests in a row or for all of these, or it is not there any more. Replies received until then are in
                the cache.
        """
        merged = {**parameters, **self.endpoint.parameters}
        parameters = {name: value for name, value in merged.items() if value is not None}
        keys = [self.key(messages, parameters, tag) for messages in requests]
        if any(self._cache.get(key) is None for key in keys):
            self.reach()
        self._stopped.clear()
        futures: dict[str, Future[Asked]] = {}
        replies: dict[str, Asked] = {}
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            try:
                for key, messages in zip(keys, requests, strict=True):
                    kept = self._cache.get(key)
                    if key in replies or key in futures:
                        continue
                    if kept is not None:
                        replies[key] = Asked.of(kept, cached=True)
                        self.usage.cached += 1
                    else:
                        futures[key] = pool.submit(self._ask_one, key, messages, parameters)
                replies |= {key: future.result() for key, future in futures.items()}
            except BaseException:
                self._stopped.set()  # Ctrl-C, too, ends the waits between retries
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        refused = next((reply.error for reply in replies.values() if reply.failure == "refused"), None)
        if refused is not None and not self.worked:
            raise self._unusable(refused)
        return [replies[key] for key in keys]

    def reach(self) -> None:
        """Do nothing where the endpoint is there; asked once, in seconds, and nothing is generated.

        Raises:
            JudgeError: nothing listens at the address, or the API lies below another one.
        """
        if self._reached:
            return
        quick = self._client.with_options(timeout=min(_REACH_S, self.endpoint.timeout_s))
        try:
            found = isinstance(getattr(quick.models.list(), "data", None), list)
        except Exception as failure:  # the server and the client may raise anything
            if refusal(failure) == "gone" or type(failure.__cause__).__name__ == "ConnectTimeout":
                raise JudgeError(
                    f"endpoint {self.where}: nothing answers there ({server_word(failure)}); start it or check "
                    "base_url, the same command goes on with what is missing"
                ) from failure
            found = getattr(failure, "status_code", None) not in (404, 405)
        if not found and self.versioned is not None and self._lists_models(quick.with_options(base_url=self.versioned)):
            raise JudgeError(f"endpoint {self.where}: no API there, but one at {self.versioned}; give that address")
        self._reached = True

    @property
    def versioned(self) -> str | None:
        """The address with the "/v1" below which servers answer, None where it names a version."""
        base = self.endpoint.base_url
        return None if base is None or re.search(r"/v\d", base) else f"{base.rstrip('/')}/v1"

    @staticmethod
    def _lists_models(client: Any) -> bool:
        try:
            return isinstance(client.models.list().data, list)
        except Exception:  # whatever is wrong there, it is not the API
            return False

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
        server = {"base_url": self.endpoint.base_url, "model": self.endpoint.model, "tag": tag}
        request = messages if isinstance(messages, str) else [dict(m) for m in messages]
        return reply_key({**server, "parameters": dict(parameters), "messages": request})

    def _ask_one(self, key: str, messages: Messages, parameters: Mapping[str, Any]) -> Asked:
        started = time.perf_counter()
        attempt = 0
        while True:
            with self._lock:
                self.usage.requests += 1
                sent = {word: value for name, value in parameters.items() if (word := self._word(name)) is not None}
            try:
                reply = self._send(messages, sent)
            except Exception as failure:  # the server and the client may raise anything; the kind decides
                if self._reworded(failure, sent):
                    continue
                kind, error, wait = refusal(failure), server_word(failure), _retry_after(failure)
                if kind == "unusable":
                    raise self._unusable(
                        error, address=getattr(failure, "status_code", None) in (404, 405)
                    ) from failure
            else:
                self._count(key, reply)
                self._cache.put(key, reply)
                return Asked.of(reply, seconds=time.perf_counter() - started)
            retries = self.endpoint.max_retries if self._failed_in_a_row < self.endpoint.give_up_after else 0
            if kind in ("filtered", "refused") or attempt >= retries:
                return self._failed(kind, error, time.perf_counter() - started)
            if self._stopped.wait(wait if wait is not None else self._backoff(attempt)):
                return self._failed(kind, error, time.perf_counter() - started)
            attempt += 1

    def _send(self, messages: Messages, parameters: Mapping[str, Any]) -> CachedReply:
        model = self.endpoint.model
        completion: Any
        if isinstance(messages, str):
            completion = self._client.completions.create(model=model, prompt=messages, **dict(parameters))
        else:
            turns: list[Any] = [dict(m) for m in messages]
            completion = self._client.chat.completions.create(model=model, messages=turns, **dict(parameters))
        # A server may answer 200 with anything; only text in the place of the text is a reply.
        choices = getattr(completion, "choices", None)
        if not choices:
            raise ValueError("the reply holds no choices[0]")
        usage = getattr(completion, "usage", None)
        prompt, completed = (getattr(usage, name, 0) or 0 for name in ("prompt_tokens", "completion_tokens"))
        return CachedReply(
            whole_text(_text(choices[0])),
            int(prompt),
            int(completed),
            finish=str(getattr(choices[0], "finish_reason", None) or ""),
            first=_first_tokens(choices[0]),
        )

    def _reworded(self, failure: Exception, sent: Mapping[str, Any]) -> bool:
        """Return whether the request failed for a parameter that is called otherwise, or left out, from now on."""
        name = refused_parameter(failure, sent)
        if name is None:
            return False
        with self._lock:
            if name not in self._refused:  # else another thread was faster
                self._refused.add(name)
                other = self._word(name)
                done = f"sent as {other!r} instead" if other else "left out; the server's default holds"
                say(f"endpoint {self.where}: does not take {name!r}: {done}")
        return True

    def _word(self, name: str) -> str | None:
        """Return what the server calls a parameter, None for one that it does not take."""
        return name if name not in self._refused else self._word(_OTHER_WORD[name]) if name in _OTHER_WORD else None

    def _unusable(self, error: str, *, address: bool = False) -> JudgeError:
        no_version = f"; most servers answer below /v1: {self.versioned}" if address and self.versioned else ""
        return JudgeError(
            f"endpoint {self.where}: model {self.endpoint.model!r}: {error}; check base_url, model, api_key and "
            f"parameters{no_version}"
        )

    def _count(self, key: str, reply: CachedReply) -> None:
        with self._lock:
            self._failed_in_a_row, self.worked = 0, True
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

    def _failed(self, kind: Refusal, error: str, seconds: float) -> Asked:
        with self._lock:
            self.usage.failed += 1
            if kind in ("filtered", "empty"):  # the server works
                self._failed_in_a_row, self.worked = 0, True
            else:
                self._failed_in_a_row += 1
            lost = self._failed_in_a_row >= self.endpoint.give_up_after and (kind == "gone" or not self.worked)
        if lost:
            raise JudgeError(
                f"endpoint {self.where}: {self.endpoint.give_up_after} requests in a row got no reply (last: "
                f"{error}); start it or check base_url{f' ({self.versioned}?)' if self.versioned else ''}, the same "
                "command goes on with what is missing"
            )
        return Asked(None, error, seconds=seconds, failure=kind)

    @property
    def where(self) -> str:
        """URL of the server, in words where it is the client's default."""
        return self.endpoint.base_url or "(default of the openai client)"

    def _backoff(self, attempt: int) -> float:
        return min(60.0, self.endpoint.backoff_s * 2.0**attempt) * (0.75 + 0.5 * self._jitter.random())


def _text(choice: Any) -> str:
    """Return the text of a choice, a thought that came apart from it in front, in tags.

    Raises:
        ContentFiltered: a filter cut or withheld it.
        NoText: there is none.
    """
    text = getattr(choice, "text", None)
    message = None if isinstance(text, str) else getattr(choice, "message", None)
    refused = getattr(message, "refusal", None)
    text = text if message is None else getattr(message, "content", None)
    finish = getattr(choice, "finish_reason", None)
    if finish == "content_filter":
        raise ContentFiltered(refused or text or f"finish_reason {finish!r}")
    text = text if isinstance(text, str) else refused
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if isinstance(thought, str):
        return f"<think>{thought}" + (f"</think>{text}" if isinstance(text, str) else "")
    if not isinstance(text, str):
        raise NoText(f"the reply holds no text (finish_reason {finish!r})")
    return text


def _first_tokens(choice: Any) -> dict[str, float]:
    """Return the log-probabilities of the likeliest first tokens, {} where the server does not tell them."""
    try:
        return {top.token: float(top.logprob) for top in choice.logprobs.content[0].top_logprobs}
    except (AttributeError, IndexError, TypeError, ValueError):
        return {}


def _retry_after(failure: Exception) -> float | None:
    """Return the seconds a server asks to wait, at most a minute; None where it does not say."""
    headers = getattr(getattr(failure, "response", None), "headers", {})
    try:
        return min(60.0, max(0.0, float(headers["retry-after"])))
    except (KeyError, TypeError, ValueError):
        return None
