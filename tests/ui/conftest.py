"""A tiny artifact with a fitted router, and the talk about it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mocae.serving.lanes import Lanes
from mocae.serving.served import Served
from mocae.ui import Talk
from serving_for_tests import TinyArtifact, tiny_artifact, with_router
from tiny import tiny_adapter, tiny_llama

AXES = ("helpful", "harmless", "honest")


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
    made.mixture.release()


@pytest.fixture
def talk(artifact: TinyArtifact) -> Iterator[Talk]:
    served = Served(artifact, version="test")
    with Lanes(served) as engine:
        yield Talk(served, engine)
