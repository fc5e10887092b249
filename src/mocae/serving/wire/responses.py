"""What clients get, in the shapes of the OpenAI API, with one field more in a choice."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

__all__ = [
    "Answered",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatLogprobs",
    "ChatToken",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "ErrorBody",
    "ErrorDetail",
    "Health",
    "ModelCard",
    "ModelList",
    "PromptTokens",
    "Routing",
    "TopToken",
    "Usage",
]

_Choice = TypeVar("_Choice")
_Ended = Literal["stop", "length"]


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True)


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


class _Response(_Sent, Generic[_Choice]):
    """What all responses share; `usage` is null in an event of a stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[_Choice]
    usage: Usage | None = None


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
    finish_reason: _Ended
    routing: Routing


class ChatCompletion(_Response[ChatChoice]):
    """The response of /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"


class _Delta(TypedDict, total=False):
    """What a chunk adds to an answer."""

    role: Literal["assistant"]
    content: str


class ChatChunkChoice(_Sent):
    """A piece of one answer; its last one has a finish_reason and the routing."""

    index: int
    delta: _Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: _Ended | None = None
    routing: Routing | None = None


class ChatChunk(_Response[ChatChunkChoice]):
    """An event of a streamed chat completion."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class CompletionChoice(_Sent):
    """One answer, or with `stream` a piece of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: _Ended | None
    routing: Routing | None


class Completion(_Response[CompletionChoice]):
    """The response of /v1/completions, and an event of a streamed one."""

    object: Literal["text_completion"] = "text_completion"


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
