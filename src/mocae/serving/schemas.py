"""What clients send and get, in the shapes of the OpenAI API, with three fields more in a request and one in a choice.

Types are strict (no `"1"` for 1, no `true` for 1.0) and fields that are not known are refused, with two exceptions:
fields of the OpenAI API that change nothing about the text (`user`, `metadata`, `store`) are accepted and not used, and
a field that is null says nothing, whatever its name: clients send back what they got.
Lists are checked up to their first mistake: a body may hold half a million.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

__all__ = [
    "Answered",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatLogprobs",
    "ChatMessage",
    "ChatRequest",
    "ChatToken",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "ErrorBody",
    "ErrorDetail",
    "Health",
    "ModelCard",
    "ModelList",
    "Routing",
    "TextPart",
    "TopToken",
    "Usage",
]

MAX_TEXTS = 128
"""Prompts, or answers to one prompt, in a request."""


class _Received(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, data: Any) -> Any:
        """Leave out unknown fields that are null, and all unknown ones but the first, which is refused."""
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        unknown = next(({n: v} for n, v in data.items() if v is not None and n not in fields), {})
        return {name: data[name] for name in fields if name in data} | unknown


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}, which is no text") from error
    return text


def _at_most(most: int) -> BeforeValidator:
    """Return a check of an object's size before anything in it is looked at."""

    def few(data: Any) -> Any:
        if isinstance(data, dict) and len(data) > most:
            raise ValueError(f"{len(data)} entries, at most {most}")
        return data

    return BeforeValidator(few)


_Text = Annotated[str, AfterValidator(_encodable)]
_Number = Annotated[float, Field(ge=-1e6, le=1e6)]
_TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
_Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, fail_fast=True)]
_Nothing = Annotated[list[dict[str, Any]], Field(max_length=0, fail_fast=True, description="Only none.")] | None
_Stop = Annotated[_Text, StringConstraints(min_length=1, max_length=200)]


class StreamOptions(_Received):
    """What a stream tells besides text."""

    include_usage: bool = Field(default=False, description="Send one more chunk with the usage at the end.")
    include_obfuscation: bool = Field(default=False, description="Accepted, not used.")


class _Asked(_Received):
    """What both kinds of requests share."""

    model: str = Field(min_length=1, max_length=256, description="A name of /v1/models: a policy or an expert.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest answer; null: as long as in the run.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0, the default, takes the most probable token, as in the run."
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Draw from the most probable tokens of this mass; default 1."
    )
    n: int | None = Field(default=None, ge=1, le=MAX_TEXTS, description="Answers to each prompt; default 1.")
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63, description="Equal seeds give equal answers; answer i of n uses seed + i."
    )
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4, fail_fast=True)] | None = Field(
        default=None, description="Texts that end the answer and do not belong to it."
    )
    stream: bool | None = Field(default=None, description="Send the answer as it comes, as server-sent events.")
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: Annotated[dict[_TokenId, Annotated[float, Field(ge=-100, le=100)]] | None, _at_most(1024)] = Field(
        default=None, description="Token id -> added to its logit."
    )
    policy: str | None = Field(
        default=None, min_length=1, max_length=256, description="A policy in place of the one `model` names."
    )
    steer: Annotated[dict[str, Annotated[float, Field(ge=0, le=1e6)]] | None, _at_most(256)] = Field(
        default=None, description="Axis -> factor on its routing weight, before normalising."
    )
    weights: Annotated[dict[str, _Number] | None, _at_most(256)] = Field(
        default=None, description="Expert -> weight in place of routing; negative allowed."
    )
    user: str | None = Field(default=None, description="Accepted, not used.")
    safety_identifier: str | None = Field(default=None, description="Accepted, not used.")
    prompt_cache_key: str | None = Field(default=None, description="Accepted, not used.")
    service_tier: str | None = Field(default=None, description="Accepted, not used.")
    metadata: Annotated[dict[str, str] | None, _at_most(64)] = Field(default=None, description="Accepted, not used.")
    store: bool | None = Field(default=None, description="Accepted, not used.")

    def stops(self) -> tuple[str, ...]:
        """Return the stop texts."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class TextPart(_Received):
    """A piece of a message."""

    type: Literal["text"]
    text: _Text


_Parts = Annotated[list[TextPart], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]


class ChatMessage(_Received):
    """A message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant"]
    content: _Text | _Parts | None = Field(
        default=None, validate_default=True, description="Null only in an answer without text."
    )
    name: str | None = Field(default=None, max_length=256, description="Accepted, not used.")
    tool_calls: _Nothing = None
    annotations: _Nothing = None

    @field_validator("content")
    @classmethod
    def _some(cls, content: Any, info: Any) -> Any:
        if content is None and info.data.get("role") != "assistant":
            raise ValueError("a message needs text; only an answer may have none")
        return content

    def text(self) -> str:
        """Return what the message says."""
        parts = self.content or ""
        return parts if isinstance(parts, str) else "".join(part.text for part in parts)


class ResponseFormat(_Received):
    """How the answer is to be shaped: as text."""

    type: Literal["text"]


class ChatRequest(_Asked):
    """A request to /v1/chat/completions."""

    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=1024,
        fail_fast=True,
        description="System messages first, then user and assistant in turn.",
    )
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of max_tokens.")
    response_format: ResponseFormat | None = Field(default=None, description="Only text.")
    tools: _Nothing = None
    tool_choice: Literal["none", "auto"] | None = Field(default=None, description="Accepted, as there are no tools.")
    parallel_tool_calls: bool | None = Field(default=None, description="Accepted, not used.")
    logprobs: bool | None = Field(default=None, description="Tell the log-probability of each token.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="And of this many alternatives.")


class CompletionRequest(_Asked):
    """A request to /v1/completions: text as it stands, without the run's prompt format."""

    prompt: (
        _Text
        | Annotated[list[_Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
        | _Tokens
        | Annotated[list[_Tokens], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
    ) = Field(description="A text, several, or tokens of one or several.")
    logprobs: int | None = Field(default=None, ge=0, le=5, description="Alternatives to tell for each token.")
    echo: Literal[False] | None = Field(default=None, description="Only false: the prompt is not repeated.")
    best_of: Literal[1] | None = Field(default=None, description="Only 1.")

    def prompts(self) -> list[str] | list[list[int]]:
        """Return the prompts, texts or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


class Routing(_Sent):
    """Which experts gave an answer."""

    policy: str = Field(
        description="What chose the weights: a policy's name, or 'weights' where the request gave them."
    )
    weights: dict[str, float] = Field(description="The weight of each expert.")
    confidence: float | None = Field(
        description="Chance, as calibrated, that the answer of the expert with the largest weight is acceptable: low "
        "where no expert can answer, and on prompts unlike the calibration prompts; null where no router chose the "
        "weights by itself."
    )
    novelty: float | None = Field(
        description="Share of held-out calibration prompts that are more like the others than this prompt is: near 1, "
        "the router knows no such prompts; null as confidence is, and for a router without calibrated chances."
    )


class PromptTokens(_Sent):
    """More about the tokens of a prompt."""

    cached_tokens: int = Field(description="Those that an earlier prompt began with and lower layers took over.")


class Usage(_Sent):
    """Tokens of a request; those of the answer count the end-of-text token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens


class TopToken(_Sent):
    """A token with its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(TopToken):
    """A token of an answer, and what was most probable at its place."""

    top_logprobs: list[TopToken]


class ChatLogprobs(_Sent):
    """Log-probabilities of an answer, before temperature and penalties."""

    content: list[ChatToken]
    refusal: None = None


class CompletionLogprobs(_Sent):
    """Log-probabilities of an answer, in the older shape."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class Answered(_Sent):
    """A message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(_Sent):
    """One answer."""

    index: int
    message: Answered
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    routing: Routing


class ChatCompletion(_Sent):
    """The response of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(_Sent):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer
    def _without_nothing(self) -> dict[str, str]:
        return {name: value for name, value in (("role", self.role), ("content", self.content)) if value is not None}


class ChatChunkChoice(_Sent):
    """A piece of one answer; its last one has a finish_reason and the routing."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    routing: Routing | None = None


class ChatChunk(_Sent):
    """An event of a streamed chat completion."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionChoice(_Sent):
    """One answer, or with `stream` a piece of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    routing: Routing | None


class Completion(_Sent):
    """The response of /v1/completions, and an event of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None


class ModelCard(_Sent):
    """A model that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["mocae"] = "mocae"
    description: str
    experts: list[str]


class ModelList(_Sent):
    """The response of /v1/models; the first one is the run's own policy."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(_Sent):
    """The response of /health."""

    status: Literal["ok", "closing"]
    waiting: int
    running: int


class ErrorDetail(_Sent):
    """What went wrong, as OpenAI clients read it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Sent):
    """The body of every response that is an error."""

    error: ErrorDetail
