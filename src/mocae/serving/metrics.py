"""What a running server tells Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mocae.serving.lanes import Lanes
from mocae.serving.request import Finished

__all__ = ["CONTENT_TYPE_LATEST", "Metrics", "label_of"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARES = tuple(i / 10 for i in range(11))


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        engine: asked for its queue whenever metrics are read.
    """

    def __init__(self, engine: Lanes) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "mocae_requests", "Requests by what became of them.", ("path", "status"), registry=registry
        )
        self._latency = Histogram(
            "mocae_request_seconds",
            "Time from request to end of response.",
            ("path",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "mocae_first_token_seconds",
            "Time to the first token, waiting included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._waited = Histogram(
            "mocae_queue_seconds", "Time a request waited for the model.", buckets=_SECONDS, registry=registry
        )
        self._prompt_tokens = Counter("mocae_prompt_tokens", "Tokens read.", ("model",), registry=registry)
        self._known = Counter(
            "mocae_cached_prompt_tokens",
            "Tokens read that an earlier prompt began with, so that lower layers took them over.",
            ("model",),
            registry=registry,
        )
        self._tokens = Counter("mocae_generated_tokens", "Tokens written.", ("model",), registry=registry)
        self._reasons = Counter(
            "mocae_answers", "Answers by model and why they ended.", ("model", "reason"), registry=registry
        )
        self._cancelled = Counter("mocae_cancelled", "Answers given up because the client left.", registry=registry)
        self._routing = Histogram(
            "mocae_routing_weight", "Weights each expert was given.", ("expert",), buckets=_SHARES, registry=registry
        )
        self._confidence = Histogram(
            "mocae_router_confidence",
            "Chance, as calibrated, that the favourite expert's answer is acceptable.",
            ("model",),
            buckets=_SHARES,
            registry=registry,
        )
        self._novelty = Histogram(
            "mocae_prompt_novelty",
            "Share of held-out calibration prompts that are more like the others than the prompt is.",
            ("model",),
            buckets=_SHARES,
            registry=registry,
        )
        for name, about, value in (
            ("mocae_queue_length", "Requests that wait.", lambda: engine.n_waiting),
            ("mocae_running", "Answers being written.", lambda: engine.n_running),
        ):
            Gauge(name, about, registry=registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Note a response."""
        self._requests.labels(path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def answer(self, model: str, answer: Finished) -> None:
        """Note an answer."""
        self._first.observe(answer.first_token_s)
        self._waited.observe(answer.waited_s)
        self._prompt_tokens.labels(model).inc(answer.n_prompt_tokens)
        self._known.labels(model).inc(answer.n_known_tokens)
        self._tokens.labels(model).inc(answer.n_tokens)
        self._reasons.labels(model, answer.reason).inc()
        for expert, weight in answer.weights.items():
            self._routing.labels(expert).observe(weight)
        if answer.confidence is not None:
            self._confidence.labels(model).observe(answer.confidence)
        if answer.novelty is not None:
            self._novelty.labels(model).observe(answer.novelty)

    def cancelled(self, n: int) -> None:
        """Note answers nobody waited for any more."""
        self._cancelled.inc(n)

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)


def label_of(path: str, known: Sequence[str]) -> str:
    """Return a path as a label: paths that are not ours are one label, so that strangers cannot make new ones."""
    return path if path in known else "other"
