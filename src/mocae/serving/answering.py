"""From the body of a request to requests of the engine, and from their events to the body of a response."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mocae.errors import ConfigError, MocaeError
from mocae.serving import schemas as s
from mocae.serving.conversation import Turn
from mocae.serving.failure import ApiError, as_api_error
from mocae.serving.pieces import Laid, Pieces, shown
from mocae.serving.request import Delta, Event, Finished, Request
from mocae.serving.sampling import Sampling, TokenLogprob
from mocae.serving.served import Served

__all__ = ["MOST_LOGPROBS", "Asked", "ChatAnswers", "CompletionAnswers", "ask", "turns_of"]

MOST_LOGPROBS = 200_000
"""Log-probabilities in one response, alternatives counted: about 15 MB of JSON."""


class Asked:
    """A checked request: what the engine is asked, and what its answers are told with.

    Attributes:
        requests: prompts in order, `n` answers to each.
        model: the name the client asked for.
        policy: what chose the weights, as told in the response.
    """

    def __init__(self, body: s.ChatRequest | s.CompletionRequest, requests: Sequence[Request]) -> None:
        self.requests = list(requests)
        self.model = body.model
        self.policy = "weights" if body.weights is not None else body.policy or body.model
        self.include_usage = bool(body.stream_options and body.stream_options.include_usage)

    @property
    def n_logprobs(self) -> int:
        """Log-probabilities that the answers may hold, alternatives counted."""
        return sum(one.max_tokens * (1 + one.top_logprobs) for one in self.requests if one.top_logprobs is not None)


def ask(
    body: s.ChatRequest | s.CompletionRequest,
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
    policy = _policy(body, served)
    lane = served.lane(body.policy or body.model)
    wanted = _wanted(body)
    if wanted is not None and max_tokens is not None and wanted > max_tokens:
        raise ApiError(
            400,
            f"max_tokens is {wanted}; this server writes at most {max_tokens} tokens an answer",
            param="max_tokens",
            code="invalid_value",
        )
    sampling = _sampling(body, served)
    chat = isinstance(body, s.ChatRequest)
    top = body.logprobs if not isinstance(body, s.ChatRequest) else (body.top_logprobs or 0) if body.logprobs else None
    requests = []
    for tokens in prompts:
        room = served.context - len(tokens)
        if not tokens or room < (wanted or 1):
            raise _no_room(served.context, len(tokens), wanted, "messages" if chat else "prompt")
        n_new = wanted or min(room, served.max_new_tokens, max_tokens or room)
        for i in range(body.n or 1):
            requests.append(
                Request(
                    tokens,
                    policy,
                    n_new,
                    sampling=sampling(i),
                    stop=body.stops(),
                    strip=chat,
                    stream=bool(body.stream),
                    top_logprobs=top,
                    timeout_s=timeout_s,
                    lane=lane,
                )
            )
    asked = Asked(body, requests)
    if asked.n_logprobs > MOST_LOGPROBS:
        raise ApiError(
            400,
            f"{len(requests)} answers of {max(one.max_tokens for one in requests)} tokens with {top} alternatives each "
            f"are up to {asked.n_logprobs} log-probabilities; at most {MOST_LOGPROBS} in one response. Ask for fewer "
            "answers, tokens or alternatives",
            param="top_logprobs" if chat else "logprobs",
            code="invalid_value",
        )
    return asked


def turns_of(body: s.ChatRequest) -> list[Turn]:
    """Return the conversation of a request."""
    return [
        Turn("system" if message.role == "developer" else message.role, message.text()) for message in body.messages
    ]


def _policy(body: s.ChatRequest | s.CompletionRequest, served: Served) -> Any:
    if body.weights is not None and body.policy is not None:
        message = "weights stands in place of a policy; give one of policy and weights"
        raise ApiError(400, message, param="weights", code="invalid_value")
    for param, name in (("model", body.model), ("policy", body.policy)):
        if name is not None and name not in served.models:
            try:
                served.policy(name)
            except MocaeError as error:
                # OpenAI answers 404 for a model; a policy is a value of a field.
                failed = as_api_error(error, param=param)
                raise (
                    failed
                    if param == "model"
                    else ApiError(
                        400, str(error).replace("unknown model", "unknown policy"), param=param, code="invalid_value"
                    )
                ) from error
    try:
        return served.policy(body.policy or body.model, steer=body.steer, weights=body.weights)
    except ConfigError as error:
        raise as_api_error(error, param="steer" if body.steer is not None else "weights") from error


def _wanted(body: s.ChatRequest | s.CompletionRequest) -> int | None:
    newer = body.max_completion_tokens if isinstance(body, s.ChatRequest) else None
    if newer is not None and body.max_tokens is not None and newer != body.max_tokens:
        message = f"max_tokens is {body.max_tokens} and max_completion_tokens {newer}; give one of them"
        raise ApiError(400, message, param="max_tokens", code="invalid_value")
    return newer if newer is not None else body.max_tokens


def _sampling(body: s.ChatRequest | s.CompletionRequest, served: Served) -> Any:
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    n_tokens = served.vocabulary
    outside = next((token for token in bias if token >= n_tokens), None)
    if outside is not None:
        message = f"logit_bias: token {outside} does not exist; the model has {n_tokens}"
        raise ApiError(400, message, param="logit_bias", code="invalid_value")

    def of(i: int) -> Sampling:
        return Sampling(
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=None if body.seed is None else body.seed + i,
            frequency_penalty=body.frequency_penalty or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            logit_bias=bias,
        )

    return of


def _no_room(context: int, n_prompt: int, wanted: int | None, param: str) -> ApiError:
    if not n_prompt:
        return ApiError(400, f"{param} is empty; give text to go on from", param=param, code="invalid_value")
    answer = "at least 1 for the answer" if wanted is None else f"{wanted} for the answer"
    return ApiError(
        400,
        f"the model's context is {context} tokens; {n_prompt} in {param} and {answer} are more. Send less",
        param=param,
        code="context_length_exceeded",
    )


class _Answers:
    """What both kinds of responses share: names, tokens as text, usage."""

    prefix: str

    def __init__(self, asked: Asked, served: Served) -> None:
        self._asked = asked
        self._pieces = Pieces.of(served.tokenizer)
        self._laid = [Laid(self._pieces) for _ in asked.requests]
        self._head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
            "system_fingerprint": f"mocae-{served.version}",
        }
        self._done: dict[int, Finished] = {}

    def routing(self, answer: Finished) -> s.Routing:
        """Return which experts gave an answer."""
        return s.Routing(
            policy=self._asked.policy,
            weights=dict(answer.weights),
            confidence=answer.confidence,
            novelty=answer.novelty,
        )

    def usage(self, answers: Mapping[int, Finished]) -> s.Usage:
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

    prefix = "chatcmpl"

    def __init__(self, asked: Asked, served: Served) -> None:
        super().__init__(asked, served)
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Finished]) -> s.ChatCompletion:
        """Return the response."""
        choices = [
            s.ChatChoice(
                index=i,
                message=s.Answered(content=answer.text),
                logprobs=self._logprobs(i, answer.text, answer.logprobs),
                finish_reason=answer.reason,
                routing=self.routing(answer),
            )
            for i, answer in enumerate(answers)
        ]
        return s.ChatCompletion(**self._head, choices=choices, usage=self.usage(dict(enumerate(answers))))

    def write(self, index: int, event: Event) -> Iterator[str]:
        """Yield the chunks of one event."""
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(s.ChatChunkChoice(index=index, delta=s.ChatDelta(role="assistant", content="")))
        if isinstance(event, Delta):
            delta = s.ChatDelta(content=event.text)
            yield self._chunk(
                s.ChatChunkChoice(index=index, delta=delta, logprobs=self._logprobs(index, event.text, event.logprobs))
            )
        elif isinstance(event, Finished):
            self._done[index] = event
            yield self._chunk(
                s.ChatChunkChoice(
                    index=index, delta=s.ChatDelta(), finish_reason=event.reason, routing=self.routing(event)
                )
            )

    def end(self) -> Iterator[str]:
        """Yield what ends a stream."""
        if self._asked.include_usage:
            usage = self.usage(self._done)
            yield s.ChatChunk(**self._head, choices=[], usage=usage).model_dump_json()
        yield "[DONE]"

    def _chunk(self, choice: s.ChatChunkChoice) -> str:
        return s.ChatChunk(**self._head, choices=[choice]).model_dump_json()

    def _logprobs(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> s.ChatLogprobs | None:
        if self._asked.requests[index].top_logprobs is None:
            return None
        pieces = self._laid[index].lay(text, (one.token for one in logprobs))
        named = self._pieces.named
        return s.ChatLogprobs(
            content=[
                s.ChatToken(
                    **_token(piece, one.logprob),
                    top_logprobs=[s.TopToken(**_token(named(token), logprob)) for token, logprob in one.top],
                )
                for piece, one in zip(pieces, logprobs, strict=True)
            ]
        )


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": shown(piece), "logprob": logprob, "bytes": list(piece)}


class CompletionAnswers(_Answers):
    """Responses of /v1/completions."""

    prefix = "cmpl"

    def whole(self, answers: Sequence[Finished]) -> s.Completion:
        """Return the response."""
        choices = [
            s.CompletionChoice(
                index=i,
                text=answer.text,
                logprobs=self._logprobs(i, answer.text, answer.logprobs),
                finish_reason=answer.reason,
                routing=self.routing(answer),
            )
            for i, answer in enumerate(answers)
        ]
        return s.Completion(**self._head, choices=choices, usage=self.usage(dict(enumerate(answers))))

    def write(self, index: int, event: Event) -> Iterator[str]:
        """Yield the chunks of one event."""
        if isinstance(event, Delta):
            yield self._chunk(index, event.text, self._logprobs(index, event.text, event.logprobs))
        elif isinstance(event, Finished):
            self._done[index] = event
            yield self._chunk(index, "", None, event)

    def end(self) -> Iterator[str]:
        """Yield what ends a stream."""
        if self._asked.include_usage:
            usage = self.usage(self._done)
            yield s.Completion(**self._head, choices=[], usage=usage).model_dump_json()
        yield "[DONE]"

    def _chunk(self, index: int, text: str, logprobs: s.CompletionLogprobs | None, last: Finished | None = None) -> str:
        choice = s.CompletionChoice(
            index=index,
            text=text,
            logprobs=logprobs,
            finish_reason=last and last.reason,
            routing=last and self.routing(last),
        )
        return s.Completion(**self._head, choices=[choice], usage=None).model_dump_json()

    def _logprobs(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> s.CompletionLogprobs | None:
        top = self._asked.requests[index].top_logprobs
        if top is None:
            return None
        laid, named = self._laid[index], self._pieces.named
        tokens, offsets = [], []
        for piece in laid.lay(text, (one.token for one in logprobs)):
            offsets.append(laid.n_characters)
            tokens.append(laid.characters(piece))
        return s.CompletionLogprobs(
            tokens=tokens,
            token_logprobs=[one.logprob for one in logprobs],
            top_logprobs=[{shown(named(token)): value for token, value in one.top} for one in logprobs]
            if top
            else None,
            text_offset=offsets,
        )
