"""From the body of a request to requests of the engine, and from their events to the body of a response."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mocae.errors import ConfigError, PluginError, unknown_name
from mocae.policies import Policy
from mocae.serving.conversation import Turn
from mocae.serving.request import Delta, Event, Finished, Request
from mocae.serving.rows.sampling import Sampling
from mocae.serving.served import Served
from mocae.serving.wire import responses as s
from mocae.serving.wire.failure import ApiError, as_api_error, invalid
from mocae.serving.wire.pieces import Laid, Pieces, shown
from mocae.serving.wire.requests import AnyRequest, ChatRequest

__all__ = ["MOST_LOGPROBS", "Asked", "ChatAnswers", "CompletionAnswers", "ask", "refuse_unknown", "turns_of"]

MOST_LOGPROBS = 200_000
"""Log-probabilities in one response, alternatives counted: about 15 MB of JSON."""


class Asked:
    """A checked request: what the engine is asked, and what its answers are told with.

    Attributes:
        requests: prompts in order, `n` answers to each.
        model: the name the client asked for.
        policy: what chose the weights, as told in the response.
    """

    def __init__(self, body: AnyRequest, requests: Sequence[Request]) -> None:
        self.requests = list(requests)
        self.model = body.model
        self.policy = "weights" if body.weights is not None else body.policy or body.model
        self.include_usage = bool(body.stream_options and body.stream_options.include_usage)

    @property
    def n_logprobs(self) -> int:
        """Log-probabilities that the answers may hold, alternatives counted."""
        return sum(one.max_tokens * (1 + one.top_logprobs) for one in self.requests if one.top_logprobs is not None)


def ask(
    body: AnyRequest,
    prompts: Sequence[Sequence[int]],
    *,
    served: Served,
    max_tokens: int | None,
    timeout_s: float | None,
) -> Asked:
    """Return a request, checked against the model.

    Args:
        body: what the client sent.
        prompts: its prompts as tokens.
        served: the models.
        max_tokens: longest answer a client may ask for; None: what the context holds.
        timeout_s: time of a request.

    Raises:
        ApiError: an unknown model, policy or expert, fields that contradict each other, or more tokens than there are.
    """
    chat = isinstance(body, ChatRequest)
    wanted = _wanted(body)
    if wanted is not None and max_tokens is not None and wanted > max_tokens:
        raise invalid("max_tokens", f"max_tokens is {wanted}; this server writes at most {max_tokens} tokens an answer")
    top = body.logprobs if not isinstance(body, ChatRequest) else (body.top_logprobs or 0) if body.logprobs else None
    common = Request(
        (),
        _policy(body, served),
        1,
        stop=body.stops(),
        strip=chat,
        stream=bool(body.stream),
        top_logprobs=top,
        timeout_s=timeout_s,
        lane=served.lane(body.policy or body.model),
    )
    sampling = [_sampling(body, served, i) for i in range(body.n or 1)]
    requests: list[Request] = []
    for tokens in prompts:
        room = served.context - len(tokens)
        if not tokens or room < (wanted or 1):
            raise _no_room(served.context, len(tokens), wanted, "messages" if chat else "prompt")
        n_new = wanted or min(room, served.max_new_tokens, max_tokens or room)
        requests += [replace(common, tokens=tokens, max_tokens=n_new, sampling=each) for each in sampling]
    asked = Asked(body, requests)
    if asked.n_logprobs > MOST_LOGPROBS:
        message = (
            f"{len(requests)} answers of {max(one.max_tokens for one in requests)} tokens with {top} alternatives each "
            f"are up to {asked.n_logprobs} log-probabilities; at most {MOST_LOGPROBS} in one response. Ask for fewer "
            "answers, tokens or alternatives"
        )
        raise invalid("top_logprobs" if chat else "logprobs", message)
    return asked


def turns_of(body: ChatRequest) -> list[Turn]:
    """Return the conversation of a request."""
    return [
        Turn("system" if message.role == "developer" else message.role, message.text()) for message in body.messages
    ]


def refuse_unknown(tokens: Iterable[int], vocabulary: int, *, param: str) -> None:
    """Do nothing if the model has all tokens of a request's field.

    Raises:
        ApiError: it lacks one.
    """
    unknown = next((token for token in tokens if token >= vocabulary), None)
    if unknown is not None:
        raise invalid(param, f"{param}: token {unknown} does not exist; the model has {vocabulary}")


def _policy(body: AnyRequest, served: Served) -> Policy | None:
    if body.weights is not None and body.policy is not None:
        raise invalid("weights", "weights stands in place of a policy; give one of policy and weights")
    if body.model not in served.models:
        raise PluginError(unknown_name("model", body.model, served.models))
    if body.policy is not None and body.policy not in served.models:  # a value of a field, where a model is a 404
        raise invalid("policy", unknown_name("policy", body.policy, served.models))
    try:
        return served.policy(body.policy or body.model, body)
    except ConfigError as error:
        raise as_api_error(error, param=next(iter(body.words), None)) from error


def _wanted(body: AnyRequest) -> int | None:
    newer = body.max_completion_tokens if isinstance(body, ChatRequest) else None
    if newer is not None and body.max_tokens is not None and newer != body.max_tokens:
        message = f"max_tokens is {body.max_tokens} and max_completion_tokens {newer}; give one of them"
        raise invalid("max_tokens", message)
    return newer if newer is not None else body.max_tokens


def _sampling(body: AnyRequest, served: Served, i: int) -> Sampling:
    """Return how the tokens of the i-th answer to a prompt are drawn."""
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    refuse_unknown(bias, served.vocabulary, param="logit_bias")
    return Sampling(
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=None if body.seed is None else body.seed + i,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=bias,
    )


def _no_room(context: int, n_prompt: int, wanted: int | None, param: str) -> ApiError:
    if not n_prompt:
        return invalid(param, f"{param} is empty; give text to go on from")
    answer = "at least 1 for the answer" if wanted is None else f"{wanted} for the answer"
    message = f"the model's context is {context} tokens; {n_prompt} in {param} and {answer} are more. Send less"
    return ApiError(400, message, param=param, code="context_length_exceeded")


class _Answers:
    """The response to one request, whole or as the events of a stream; a subclass knows its shape."""

    prefix: str
    response: type[s.ChatCompletion | s.Completion]
    chunk: type[s.ChatChunk | s.Completion]

    def __init__(self, asked: Asked, served: Served) -> None:
        self._asked = asked
        self._pieces = Pieces.of(served.tokenizer)
        self._laid = [Laid(self._pieces) for _ in asked.requests]
        self._head: dict[str, Any] = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
            "system_fingerprint": f"mocae-{served.version}",
        }
        self._done: dict[int, Finished] = {}

    def whole(self, answers: Sequence[Finished]) -> s.ChatCompletion | s.Completion:
        """Return the response."""
        choices: Any = [self._choice(i, answer) for i, answer in enumerate(answers)]
        return self.response(**self._head, choices=choices, usage=self._usage(dict(enumerate(answers))))

    def write(self, index: int, event: Event) -> Iterator[str]:
        """Yield the chunks of one event."""
        if isinstance(event, Finished):
            self._done[index] = event
        if isinstance(event, Delta | Finished):
            yield self._chunk(self._piece(index, event))

    def end(self) -> Iterator[str]:
        """Yield what ends a stream."""
        if self._asked.include_usage:
            yield self._chunk(usage=self._usage(self._done))
        yield "[DONE]"

    def _chunk(self, *choices: Any, usage: s.Usage | None = None) -> str:
        return self.chunk(**self._head, choices=list(choices), usage=usage).model_dump_json()

    def _choice(self, index: int, answer: Finished) -> Any:
        """Return a whole answer."""
        raise NotImplementedError

    def _piece(self, index: int, event: Delta | Finished) -> Any:
        """Return what an event adds to an answer; the last one adds no text, and the routing."""
        raise NotImplementedError

    def _ending(self, index: int, event: Delta | Finished) -> dict[str, Any]:
        """Return which answer an event is of, why it ended and which experts gave it."""
        if isinstance(event, Delta):
            return {"index": index, "finish_reason": None, "routing": None}
        routing = s.Routing(
            policy=self._asked.policy,
            weights=dict(event.weights),
            confidence=event.confidence,
            novelty=event.novelty,
        )
        return {"index": index, "finish_reason": event.reason, "routing": routing}

    def _lay(self, index: int, answer: Delta | Finished) -> list[bytes] | None:
        """Return the bytes of the tokens of a text, None where no log-probabilities are asked for."""
        if self._asked.requests[index].top_logprobs is None:
            return None
        return self._laid[index].lay(answer.text, (one.token for one in answer.logprobs))

    def _usage(self, answers: Mapping[int, Finished]) -> s.Usage:
        """Return the tokens of all answers, given by their index; a prompt counts once, however many answers it has."""
        prompts = {id(request.tokens): len(request.tokens) for request in self._asked.requests}
        known = {id(self._asked.requests[index].tokens): one.n_known_tokens for index, one in answers.items()}
        n_prompt, n_new = sum(prompts.values()), sum(answer.n_tokens for answer in answers.values())
        return s.Usage(
            prompt_tokens=n_prompt,
            completion_tokens=n_new,
            total_tokens=n_prompt + n_new,
            prompt_tokens_details=s.PromptTokens(cached_tokens=sum(known.values())),
        )


class ChatAnswers(_Answers):
    """Responses of /v1/chat/completions."""

    prefix, response, chunk = "chatcmpl", s.ChatCompletion, s.ChatChunk

    def __init__(self, asked: Asked, served: Served) -> None:
        super().__init__(asked, served)
        self._begun: set[int] = set()

    def write(self, index: int, event: Event) -> Iterator[str]:
        """Yield the chunks of one event."""
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(s.ChatChunkChoice(index=index, delta={"role": "assistant", "content": ""}))
        yield from super().write(index, event)

    def _choice(self, index: int, answer: Finished) -> s.ChatChoice:
        message, logprobs = s.Answered(content=answer.text), self._logprobs(index, answer)
        return s.ChatChoice(message=message, logprobs=logprobs, **self._ending(index, answer))

    def _piece(self, index: int, event: Delta | Finished) -> s.ChatChunkChoice:
        ending = self._ending(index, event)
        if isinstance(event, Finished):
            return s.ChatChunkChoice(delta={}, **ending)
        return s.ChatChunkChoice(delta={"content": event.text}, logprobs=self._logprobs(index, event), **ending)

    def _logprobs(self, index: int, answer: Delta | Finished) -> s.ChatLogprobs | None:
        pieces, named = self._lay(index, answer), self._pieces.named
        if pieces is None:
            return None
        content = []
        for piece, one in zip(pieces, answer.logprobs, strict=True):
            top = [s.TopToken(**_token(named(token), logprob)) for token, logprob in one.top]
            content.append(s.ChatToken(**_token(piece, one.logprob), top_logprobs=top))
        return s.ChatLogprobs(content=content)


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(piece), "logprob": logprob, "bytes": list(piece)}


class CompletionAnswers(_Answers):
    """Responses of /v1/completions."""

    prefix, response, chunk = "cmpl", s.Completion, s.Completion

    def _choice(self, index: int, answer: Delta | Finished) -> s.CompletionChoice:
        logprobs = self._logprobs(index, answer)
        return s.CompletionChoice(text=answer.text, logprobs=logprobs, **self._ending(index, answer))

    def _piece(self, index: int, event: Delta | Finished) -> s.CompletionChoice:
        if isinstance(event, Finished):
            return s.CompletionChoice(text="", logprobs=None, **self._ending(index, event))
        return self._choice(index, event)

    def _logprobs(self, index: int, answer: Delta | Finished) -> s.CompletionLogprobs | None:
        pieces, laid, named = self._lay(index, answer), self._laid[index], self._pieces.named
        if pieces is None:
            return None
        tokens, offsets = [], []
        for piece in pieces:
            offsets.append(laid.n_characters)
            tokens.append(laid.characters(piece))
        top = [{shown(named(token)): value for token, value in one.top} for one in answer.logprobs]
        return s.CompletionLogprobs(
            tokens=tokens,
            token_logprobs=[one.logprob for one in answer.logprobs],
            top_logprobs=top if self._asked.requests[index].top_logprobs else None,
            text_offset=offsets,
        )
