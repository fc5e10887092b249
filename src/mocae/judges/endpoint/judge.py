"""A prompt file and an endpoint as a judge; comparisons are asked in both orders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mocae.errors import ConfigError
from mocae.judges.base import JudgeQuality, Says, reference_of, with_correct
from mocae.judges.endpoint.client import EndpointClient
from mocae.judges.endpoint.parsers import PARSERS, Parsed
from mocae.judges.endpoint.prompts import JudgePrompt, load_prompt
from mocae.judges.endpoint.values import Asked, Endpoint, Messages, Usage
from mocae.types import Answer, Verdict

__all__ = ["EndpointJudge", "endpoint_judge", "filled"]


class EndpointJudge:
    """Judges by asking a language model behind an OpenAI-compatible endpoint.

    A reply that does not come, that a content filter withholds, that ended at its limit of tokens, or that the prompt's
    parser cannot read, is unscored; the text or the server's word is kept.
    Comparisons ("win") are asked twice, with the answers in both orders: the score is the mean, and a pair of verdicts
    that contradict each other is labelled "flipped". Where one order has no verdict the pair is unscored. An answer is
    "correct" where its win is above one half: a draw or a flip is no win.

    Args:
        client: where to ask.
        prompt: what to ask.
    """

    quality: JudgeQuality | None = None
    asks_server = True

    def __init__(self, client: EndpointClient, prompt: JudgePrompt) -> None:
        self._client = client
        self._prompt = prompt
        self.name = f"openai:{prompt.name}:{client.endpoint.model}"
        self.judgements: tuple[str, ...] = ("win", "correct") if prompt.judgement == "win" else (prompt.judgement,)

    @property
    def usage(self) -> Usage:
        """Requests, tokens and cost so far."""
        return self._client.usage

    def reach(self) -> None:
        """Do nothing where the endpoint is there or has been; see `EndpointClient.reach`."""
        if not self._client.worked:
            self._client.reach()

    def usage_before(self, answers: Sequence[Answer]) -> Usage:
        """Return what judging these answers took before this judge was made, as the cache of replies tells."""
        _, requests = self._requests(answers)
        return self._client.usage_before(requests, parameters=self._prompt.parameters, tag=self._prompt.hash)

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdict on each answer to a probe of the prompt file, {} for the others.

        Raises:
            JudgeError: the endpoint cannot be used at all, see `EndpointClient.ask`.
        """
        chosen, requests = self._requests(answers)
        pair = len(requests) > len(chosen)
        all_replies = self._client.ask(requests, parameters=self._prompt.parameters, tag=self._prompt.hash)
        judged: list[dict[str, Verdict]] = [{} for _ in answers]
        for place, i in enumerate(chosen):
            replies = [all_replies[place], all_replies[place + len(chosen)]] if pair else [all_replies[place]]
            verdict = self._verdict(replies)
            judged[i] = with_correct(verdict) if "win" in self.judgements else {self.judgements[0]: verdict}
        return judged

    def _requests(self, answers: Sequence[Answer]) -> tuple[list[int], list[Messages]]:
        """Return which answers are asked about, and what is asked; comparisons in both orders, one after the other."""
        chosen = [i for i, answer in enumerate(answers) if self._applies(answer)]
        orders = (False, True) if self._prompt.judgement == "win" else (False,)
        pairs = [filled(answers[i], swapped=swapped) for swapped in orders for i in chosen]
        return chosen, [self._prompt.messages(values) for values in pairs]

    def _applies(self, answer: Answer) -> bool:
        needed = self._prompt.judgement != "win" or reference_of(answer) is not None
        return self._prompt.is_for(answer.example.probe) and needed

    def _verdict(self, replies: Sequence[Asked]) -> Verdict:
        raw = "\n---\n".join(reply.error if reply.text is None else reply.text for reply in replies)
        seconds = sum(reply.seconds for reply in replies)
        parse = PARSERS[self._prompt.parser]
        parsed = [None if reply.text is None else parse(reply.text) for reply in replies]
        readable = [p for p in parsed if p is not None]
        if any(reply.text is None or reply.cut for reply in replies) or len(readable) < len(replies):
            return Verdict(None, why_unscored(replies), self.name, raw, seconds)
        score, label = readable[0] if len(readable) == 1 else _both_orders(readable[0], readable[1])
        return Verdict(score, label, self.name, raw, seconds)


def why_unscored(replies: Sequence[Asked]) -> str:
    """Return the label of a verdict that replies do not give; "no reply" alone is worth asking again."""
    failures = {reply.failure for reply in replies if reply.text is None}
    if not failures:
        return "unscored: cut off" if any(reply.cut for reply in replies) else "unscored: unreadable"
    if failures <= {"filtered", "refused"}:
        return f"unscored: {'filtered' if 'filtered' in failures else 'refused'}"
    return "unscored: no reply"


def _both_orders(first: Parsed, swapped: Parsed) -> Parsed:
    """Return the mean win of the answer that was A first and B after the swap."""
    wins = (first.score, 1 - swapped.score)
    score = sum(wins) / 2
    if set(wins) == {0.0, 1.0}:
        return Parsed(score, "flipped")
    return Parsed(score, "win" if score > 0.5 else "loss" if score < 0.5 else "draw")


def filled(answer: Answer, *, swapped: bool = False) -> Mapping[str, str]:
    """Return what a prompt file can name: the prompt, the answer, references; the answer is A unless `swapped`."""
    facts = answer.example.facts
    pair = (answer.text, reference_of(answer) or "")
    first, second = pair[::-1] if swapped else pair
    return {
        "prompt": answer.example.prompt,
        "answer": answer.text,
        "reference": pair[1],
        "answer_a": first,
        "answer_b": second,
        "correct": _listed(facts.get("correct")),
        "incorrect": _listed(facts.get("incorrect")),
    }


def _listed(texts: Any) -> str:
    return "\n".join(f"- {text}" for text in texts) if isinstance(texts, list | tuple) else ""


def endpoint_judge(
    *,
    prompt: str,
    model: str,
    base_url: str | None = None,
    api_key_variable: str | None = None,
    cache: Path | None = None,
    concurrency: int = 8,
    timeout_s: float = 60.0,
    max_retries: int = 5,
    backoff_s: float = 1.0,
    prompt_price: float | None = None,
    completion_price: float | None = None,
    parameters: dict[str, Any] | None = None,
    data_root: Path | None = None,
) -> EndpointJudge:
    """Return a judge behind an OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, OpenAI).

    Args:
        prompt: name of a prompt that ships with the package, or a path ending in ".yaml".
        model: name the server knows the model by.
        base_url: of the server, such as "http://127.0.0.1:8000/v1".
        api_key_variable: environment variable that holds the key; keys do not belong in recipes.
        cache: file of replies.
        concurrency: requests in flight at once.
        timeout_s: longest silence of the server.
        max_retries: attempts after the first one fails.
        backoff_s: wait before the first retry; doubles.
        prompt_price: per million prompt tokens.
        completion_price: per million completion tokens.
        parameters: of every completion, over those of the prompt file; null leaves one out.
        data_root: folder that a relative path of a prompt file starts from; a recipe's own unless given.

    Raises:
        ConfigError: no such prompt, or a number out of range, or the variable is not set.
    """
    client = make_client(
        "openai",
        model=model,
        api_key_variable=api_key_variable,
        cache=cache,
        base_url=base_url,
        concurrency=concurrency,
        timeout_s=timeout_s,
        max_retries=max_retries,
        backoff_s=backoff_s,
        prompt_price=prompt_price,
        completion_price=completion_price,
        parameters=parameters or {},
    )
    return EndpointJudge(client, load_prompt(prompt, data_root))


def make_client(
    judge: str, *, model: str, api_key_variable: str | None, cache: Path | None, **settings: Any
) -> EndpointClient:
    """Return the client of a judge from its options; `settings` are those of `Endpoint`.

    Raises:
        ConfigError: a number out of range, or the variable is not set.
    """
    for name, least in (("concurrency", 1), ("timeout_s", 0), ("max_retries", 0), ("backoff_s", 0)):
        value = settings.get(name, least)
        if value < least or (name == "timeout_s" and value == 0 and name in settings):
            expected = "at least 0" if name in ("max_retries", "backoff_s") else "above 0"
            raise ConfigError(f"judge {judge!r}: {name} is {value}; expected {expected}")
    key = None
    if api_key_variable is not None:
        key = os.environ.get(api_key_variable)
        if not key:
            raise ConfigError(f"judge {judge!r}: the environment variable {api_key_variable!r} is not set")
    return EndpointClient(Endpoint(model=model, api_key=key, **settings), cache=cache)


def _says(*, prompt: str, data_root: Path | None = None, **_: Any) -> Says:
    file = load_prompt(prompt, data_root)
    if file.judgement != "win":
        return lambda example: (file.judgement,) if file.is_for(example.probe) else ()
    return lambda e: ("win", "correct") if file.is_for(e.probe) and reference_of(Answer(e, "")) else ()


endpoint_judge.says = _says  # type: ignore[attr-defined]
