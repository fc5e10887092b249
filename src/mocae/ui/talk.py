"""Questions to one or several systems at once, and their answers while they are written. Knows no page."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from mocae.policies import Policy, PromptBatch, RoutedPolicy, Steering, named_weights
from mocae.serving import Delta, Event, Failed, Finished, Request
from mocae.serving.lanes import Lanes
from mocae.serving.request import Sink
from mocae.serving.served import Served
from mocae.serving.wire.answering import ask, turns_of
from mocae.serving.wire.requests import ChatMessage, ChatRequest
from mocae.ui.why import Why, explain

__all__ = ["Answer", "Question", "Talk"]


@dataclass(frozen=True, slots=True)
class Question:
    """What one system is asked.

    Attributes:
        system: a name of the served models.
        text: what the user says.
        before: earlier (question, answer) pairs that the system reads too.
        steering: what is said about the weights; by default nothing.
    """

    system: str
    text: str
    before: Sequence[tuple[str, str]] = ()
    steering: Steering = field(default_factory=Steering)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it is written.

    Attributes:
        text: so far.
        weights: of the experts, None until the prompt was read.
        why: what the router saw, None for a system without a router.
        reason: why it ended, None while it is being written.
    """

    text: str = ""
    weights: Mapping[str, float] | None = None
    why: Why | None = None
    reason: Literal["stop", "length"] | None = None


class Talk:
    """Asks the engine as the server does: same checks, same tokens, same queue.

    Args:
        served: the systems.
        engine: started; it may answer others at the same time.
        timeout_s: time of an answer, waiting included.
    """

    def __init__(self, served: Served, engine: Lanes, *, timeout_s: float | None = 120.0) -> None:
        self.served = served
        self.engine = engine
        self._timeout_s = timeout_s

    def answers(self, questions: Sequence[Question]) -> Iterator[list[Answer]]:
        """Yield all answers so far whenever one of them has grown; they are given up when nobody listens any more.

        Raises:
            MocaeError: a question that the model cannot read, a full queue, or an answer that failed.
        """
        watched = [self._request(question) for question in questions]
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()

        sinks: list[Sink] = [lambda event, i=i: events.put((i, event)) for i in range(len(watched))]  # type: ignore[misc]
        tickets = self.engine.submit([replace(request, policy=policy) for request, policy in watched], sinks)
        answers = [Answer() for _ in questions]
        try:
            while any(answer.reason is None for answer in answers):
                i, event = events.get()
                answers[i] = self._grown(answers[i], event, questions[i], watched[i][1])
                if events.empty():
                    yield list(answers)
        finally:
            for ticket in tickets:
                ticket.cancel()

    def _request(self, question: Question) -> tuple[Request, _Watched | None]:
        texts = [*(text for pair in question.before for text in pair), question.text]
        messages = [ChatMessage(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(texts)]
        body = ChatRequest(model=question.system, messages=messages, stream=True, **question.steering.words)
        tokens = self.served.chat_tokens(turns_of(body), model=question.system)
        [request] = ask(body, [tokens], served=self.served, max_tokens=None, timeout_s=self._timeout_s).requests
        return request, None if request.policy is None else _Watched(request.policy)

    def _grown(self, answer: Answer, event: Event, question: Question, policy: _Watched | None) -> Answer:
        if isinstance(event, Failed):
            raise event.error
        if answer.weights is None and policy is not None:
            weights = named_weights(self.served.experts, policy.alpha)
            answer = replace(answer, weights=weights, why=self._why(question, policy))
        if isinstance(event, Delta):
            return replace(answer, text=answer.text + event.text)
        assert isinstance(event, Finished)
        return replace(answer, text=event.text, reason=event.reason, weights=answer.weights or dict(event.weights))

    def _why(self, question: Question, policy: _Watched) -> Why | None:
        routed = self.served.policy(question.system)
        if not isinstance(routed, RoutedPolicy) or policy.pooled is None:
            return None
        return explain(routed.router, policy.pooled)


class _Watched(Policy):
    """A policy of one prompt that keeps what it read and what it chose."""

    def __init__(self, policy: Policy) -> None:
        self.reads = policy.reads
        self.output = policy.output
        self.pooled: Tensor | None = None
        self._policy = policy

    def route(self, batch: PromptBatch) -> Tensor:
        alpha = self._policy.route(batch)
        self.pooled, self.alpha = batch.pooled, alpha[0].detach().float().cpu()
        return alpha
