"""What a server serves in tests: a tiny artifact, requests to it, and a live server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import schemathesis
import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from starlette.types import ASGIApp

from mocae.bank import ExpertBank
from mocae.calibration import CalibrationSet, RouterSettings, fit_latent_space, fit_router
from mocae.models import BaseGenerator, LoadedBase
from mocae.policies import FixedPolicy, Mixture, RoutedPolicy
from mocae.prompts import FORMATS, PromptFormat
from mocae.serving import Engine, Event, Failed, Finished, Request
from mocae.serving.app import Settings, build_app
from mocae.serving.connection import Patience
from mocae.serving.listening import Server, open_socket
from mocae.serving.served import Served
from reading_policy import ReadingPolicy
from tiny import tiny_llama, tiny_tokenizer


class TinyArtifact:
    """What `mocae.load(...).artifact` is, in small; its own policy, "alignx", reads what enters layer 2.

    `others` are systems that are no policy over the bank, each on a base model of its own.
    """

    max_new_tokens = 8

    def __init__(self, mixture: Mixture, prompt_format: PromptFormat) -> None:
        self.base = mixture.base
        self.axes = mixture.experts
        self.mixture = mixture
        self.prompt_format = prompt_format
        ones = dict(zip(self.axes, torch.eye(len(self.axes)), strict=True))
        self.fixed = {
            "uniform": FixedPolicy(torch.full((len(self.axes),), 1 / len(self.axes))),
            "sum": FixedPolicy(torch.ones(len(self.axes))),
            "base": FixedPolicy(torch.zeros(len(self.axes))),
            **{f"expert:{name}": FixedPolicy(weights) for name, weights in ones.items()},
        }
        self.others: dict[str, BaseGenerator] = {}

    @property
    def about(self) -> dict[str, str]:
        """Names of the systems, the default first."""
        return {"alignx": "reads the prompt", **dict.fromkeys((*self.fixed, *self.others), "a system")}

    def shared_mixture(self) -> Mixture:
        return self.mixture

    def over_the_bank(self, name: str) -> bool:
        return name not in self.others

    def is_loaded(self, name: str) -> bool:
        return True

    def generator(self, name: str) -> BaseGenerator:
        return self.others.get(name) or self.mixture.using(self.fixed.get(name))


def tiny_artifact(adapters: Mapping[str, Path], model: Any = None) -> TinyArtifact:
    """Return an artifact of a tiny model."""
    base = LoadedBase(model or tiny_llama(max_position_embeddings=256), tiny_tokenizer())
    bank = ExpertBank.attach(base.model, adapters)
    return TinyArtifact(Mixture(base, bank, ReadingPolicy(2)), FORMATS.get("plain"))


def with_router(artifact: TinyArtifact) -> TinyArtifact:
    """Return an artifact whose own policy is a router; it was fitted on noise, which is enough to route."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(20)
    states = torch.randn(60, 32, generator=generator)
    latent = fit_latent_space(states, [torch.randn(10, 32, generator=generator) for _ in range(3)], k=6)
    clouds = [latent.encode(states[labels == i]) for i in range(3)]
    acceptable = torch.rand(60, 3, generator=generator) < 0.5
    router = fit_router(
        CalibrationSet(states, acceptable, labels, [""] * 60),
        axes=artifact.axes,
        latent=latent,
        clouds=clouds,
        settings=RouterSettings(),
        layer=2,
        pool="mean",
    ).router
    artifact.mixture.policy = RoutedPolicy(router)
    return artifact


def served(artifact: TinyArtifact) -> Served:
    """Return an artifact as it is served; "alignx" is its own policy."""
    return Served(artifact, version="test")


def generated(artifact: TinyArtifact, request: Request, **how: Any) -> list[int]:
    """Return the tokens Hugging Face's `generate` answers one request with, alone, without the end-of-text token."""
    ids = torch.tensor([list(request.tokens)])
    mixture = artifact.mixture.using(request.policy)
    made = mixture.generate(ids, max_new_tokens=request.max_tokens, do_sample=False, **how)
    out: list[int] = made.ids[0, ids.shape[1] :].tolist()
    end = artifact.mixture.base.tokenizer.eos_token_id
    return out[: out.index(end)] if end in out else out


def answer_all(engine: Engine, requests: Sequence[Request]) -> list[Finished]:
    """Return the answers to requests that are submitted at once."""
    done: dict[int, Event] = {}
    left = threading.Semaphore(0)

    def take(index: int, event: Event) -> None:
        if isinstance(event, Finished | Failed):
            done[index] = event
            left.release()

    engine.submit(requests, [lambda event, i=i: take(i, event) for i in range(len(requests))])  # type: ignore[misc]
    for _ in requests:
        assert left.acquire(timeout=60)
    ended = [done[i] for i in range(len(requests))]
    failed = next((event.error for event in ended if isinstance(event, Failed)), None)
    if failed is not None:
        raise failed
    return ended  # type: ignore[return-value]


@contextmanager
def live(models: Served, settings: Settings | None = None, **how: Any) -> Iterator[str]:
    """Return a context with a server; its value is the server's address."""
    with live_app(build_app(models, settings), **how) as url:
        yield url


@contextmanager
def live_app(
    app: ASGIApp, *, patience: Patience | None = None, grace_s: float = 0.5, log_level: str = "critical"
) -> Iterator[str]:
    """Return a context with an application on loopback; its value is the address."""
    opened = open_socket("127.0.0.1", 0)
    server = Server(app, grace_s=grace_s, patience=patience, log_level=log_level)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        opened.close()


def idle(client: httpx.Client, within_s: float = 5.0) -> bool:
    """Whether nothing runs or waits before the time is over."""
    until = time.monotonic() + within_s
    while client.get("/health").json() != {"status": "ok", "waiting": 0, "running": 0}:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def ask_everything(url: str, n: int) -> set[str]:
    """Ask `n` requests made from its schema for every operation of a server and return its paths.

    Raises:
        AssertionError: one of them was answered with a status of 500 or more.
    """
    asked: set[str] = set()
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()

        @hypothesis_settings(
            max_examples=n,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=[not_a_server_error])

        check()
        asked.add(operation.path)
    return asked
