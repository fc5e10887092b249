"""What the engine is asked, and what it tells: a request, pieces of its answer, its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mocae.policies import Policy
from mocae.serving.rows.sampling import Sampling, TokenLogprob

__all__ = ["Delta", "Event", "Failed", "Finished", "Request", "Sink", "Ticket"]


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to one prompt.

    Attributes:
        tokens: the prompt, as the model reads it.
        policy: chooses the weights of the experts; None where the model chooses by itself, or has none.
        max_tokens: longest answer.
        sampling: how tokens are drawn.
        stop: texts that end the answer.
        strip: leave out spaces around the answer.
        stream: tell each piece as it comes, not only the whole.
        top_logprobs: how many alternatives to tell for each token; None: no log-probabilities at all.
        timeout_s: how long it may take, waiting included; None: as long as it takes.
        prompt_id: identity of the prompt, for policies that look prompts up.
        lane: which engine answers, see `mocae.serving.lanes.Lanes`; "": that of the bank of experts.
    """

    tokens: Sequence[int]
    policy: Policy | None
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    strip: bool = False
    stream: bool = False
    top_logprobs: int | None = None
    timeout_s: float | None = None
    prompt_id: str = ""
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that became final, and the tokens it is made of where log-probabilities were asked for."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """An answer as a whole.

    Attributes:
        text: all of it.
        reason: "stop": an end-of-text token or a stop text; "length": `max_tokens`.
        weights: the weight of each expert.
        confidence: of the router, see `Sureness`; None where no router chose the weights by itself.
        n_prompt_tokens: tokens read.
        n_known_tokens: those of them that an earlier prompt began with, so that the lower layers did not compute them.
        n_tokens: tokens generated, an end-of-text token included.
        logprobs: of the tokens of the text, where they were asked for.
        waited_s: time until the model began to read the prompt.
        first_token_s: time until the first token, waiting included.
        total_s: time until the end.
        novelty: of the prompt to the router, see `Sureness`; None where it does not say.
    """

    text: str
    reason: Literal["stop", "length"]
    weights: Mapping[str, float]
    confidence: float | None
    n_prompt_tokens: int
    n_known_tokens: int
    n_tokens: int
    logprobs: tuple[TokenLogprob, ...]
    waited_s: float
    first_token_s: float
    total_s: float
    novelty: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no answer, or no more of it."""

    error: Exception


Event: TypeAlias = Delta | Finished | Failed
Sink: TypeAlias = Callable[[Event], None]
"""Takes events in the engine's thread; it must not wait. `Finished` or `Failed` is the last."""


class Ticket:
    """What a submitted request can still be told: that nobody wants the answer any more."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop working on the answer before its next token; no event follows. Harmless after the end."""
        self._cancelled.set()
