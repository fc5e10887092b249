"""What a running server tells Prometheus."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mocae.serving.lanes import Lanes
from mocae.serving.request import Finished

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARES = tuple(i / 10 for i in range(11))


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        engine: asked for its queue whenever metrics are read.

    Attributes:
        paths: those that are noted by their names.
    """

    paths: Collection[str] = ()

    def __init__(self, engine: Lanes) -> None:
        self._registry = registry = CollectorRegistry()
        counter = partial(_make, Counter, registry)
        seconds = partial(_make, Histogram, registry, buckets=_SECONDS)
        shares = partial(_make, Histogram, registry, buckets=_SHARES)
        self._requests = counter("requests", "Requests by what became of them.", "path", "status")
        self._latency = seconds("request_seconds", "Time from request to end of response.", "path")
        self._first = seconds("first_token_seconds", "Time to the first token, waiting included.")
        self._waited = seconds("queue_seconds", "Time a request waited for the model.")
        self._prompt_tokens = counter("prompt_tokens", "Tokens read.", "model")
        about = "Tokens read that an earlier prompt began with, so that lower layers took them over."
        self._known = counter("cached_prompt_tokens", about, "model")
        self._tokens = counter("generated_tokens", "Tokens written.", "model")
        self._reasons = counter("answers", "Answers by model and why they ended.", "model", "reason")
        self._cancelled = counter("cancelled", "Answers given up because the client left.")
        self._routing = shares("routing_weight", "Weights each expert was given.", "expert")
        about = "Chance, as calibrated, that the favourite expert's answer is acceptable."
        self._confidence = shares("router_confidence", about, "model")
        about = "Share of held-out calibration prompts that are more like the others than the prompt is."
        self._novelty = shares("prompt_novelty", about, "model")
        _make(Gauge, registry, "queue_length", "Requests that wait.").set_function(lambda: engine.n_waiting)
        _make(Gauge, registry, "running", "Answers being written.").set_function(lambda: engine.n_running)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Note a response; paths that are not ours are one label, so that strangers cannot make new ones."""
        path = path if path in self.paths else "other"
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


def _make(kind: type[Any], registry: CollectorRegistry, name: str, about: str, *labels: str, **how: Any) -> Any:
    return kind(f"mocae_{name}", about, labels, registry=registry, **how)
