"""What clients send, in the shapes of the OpenAI API, with the words of `Steering` and `policy` more.

Types are strict (no `"1"` for 1, no `true` for 1.0) and fields that are not known are refused, with two exceptions:
fields of the OpenAI API that change nothing about the text (`user`, `metadata`, `store`) are accepted and not used, and
a field that is null says nothing, whatever its name: clients send back what they got.
Lists are checked up to their first mistake: a body may hold half a million.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from mocae.policies import Steering, entries_at_most

__all__ = [
    "MAX_TEXTS",
    "AnyRequest",
    "ChatMessage",
    "ChatRequest",
    "CompletionRequest",
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


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair at character {error.start}, which is no text") from error
    return text


_Text = Annotated[str, AfterValidator(_encodable)]
_TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
_Tokens = Annotated[list[Annotated[int, Field(ge=0, le=2**31)]], Field(min_length=1, fail_fast=True)]
_Nothing = Annotated[list[dict[str, Any]], Field(max_length=0, fail_fast=True, description="Only none.")] | None
_Stop = Annotated[_Text, StringConstraints(min_length=1, max_length=200)]


class StreamOptions(_Received):
    """What a stream tells besides text."""

    include_usage: bool = Field(default=False, description="Send one more chunk with the usage at the end.")
    include_obfuscation: bool = Field(default=False, description="Accepted, not used.")


class _Asked(_Received, Steering):
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
    logit_bias: Annotated[dict[_TokenId, Annotated[float, Field(ge=-100, le=100)]] | None, entries_at_most(1024)] = (
        Field(default=None, description="Token id -> added to its logit.")
    )
    policy: str | None = Field(
        default=None, min_length=1, max_length=256, description="A policy in place of the one `model` names."
    )
    user: str | None = Field(default=None, description="Accepted, not used.")
    safety_identifier: str | None = Field(default=None, description="Accepted, not used.")
    prompt_cache_key: str | None = Field(default=None, description="Accepted, not used.")
    service_tier: str | None = Field(default=None, description="Accepted, not used.")
    metadata: Annotated[dict[str, str] | None, entries_at_most(64)] = Field(
        default=None, description="Accepted, not used."
    )
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


AnyRequest: TypeAlias = ChatRequest | CompletionRequest
