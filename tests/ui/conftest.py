"""A tiny artifact with a fitted router, and the page about it on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mocae.calibration import CalibrationSet, RouterSettings, fit_latent_space, fit_router
from mocae.policies import build_policy
from mocae.serving import Engine
from mocae.serving.served import Served
from mocae.ui import Talk
from serving_for_tests import TinyArtifact, tiny_artifact
from tiny import tiny_adapter, tiny_llama

AXES = ("helpful", "harmless", "honest")
_WIDTH = 32


def with_router(artifact: TinyArtifact) -> TinyArtifact:
    """Return an artifact whose own policy is a router; it was fitted on noise, which is enough to route."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(3).repeat_interleave(20)
    states = torch.randn(60, _WIDTH, generator=generator)
    latent = fit_latent_space(states, [torch.randn(10, _WIDTH, generator=generator) for _ in AXES], k=6)
    clouds = [latent.encode(states[labels == i]) for i in range(3)]
    acceptable = torch.rand(60, 3, generator=generator) < 0.5
    router = fit_router(
        CalibrationSet(states, acceptable, labels, [""] * 60),
        axes=AXES,
        latent=latent,
        clouds=clouds,
        settings=RouterSettings(),
        layer=2,
        pool="mean",
    ).router
    artifact.parts = replace(artifact.parts, routers={"alignx": router})
    artifact.mixture.policy = build_policy("alignx", artifact.parts)
    return artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyArtifact]:
    root, model = tmp_path_factory.mktemp("ui"), tiny_llama()
    made = with_router(
        tiny_artifact(
            {
                axis: tiny_adapter(model, root / axis, seed=seed, layers_to_transform=[2, 3])
                for seed, axis in enumerate(AXES)
            }
        )
    )
    made.max_new_tokens = 24
    yield made
    made.mixture.detach()


@pytest.fixture
def talk(artifact: TinyArtifact) -> Iterator[Talk]:
    with Engine(artifact.mixture) as engine:
        yield Talk(Served(artifact, version="test"), engine)
