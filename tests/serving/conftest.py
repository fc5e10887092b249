"""Three experts on one tiny Llama as an artifact, and servers of it on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving_for_tests import TinyArtifact, tiny_artifact
from tiny import tiny_adapter, tiny_llama


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEFT folders of experts on layers 2 and 3, by name."""
    root, model = tmp_path_factory.mktemp("served"), tiny_llama()
    return {
        name: tiny_adapter(model, root / name, seed=seed, r=r, layers_to_transform=[2, 3])
        for seed, (name, r) in enumerate({"helpful": 4, "harmless": 2, "honest": 3}.items())
    }


@pytest.fixture
def artifact(adapters: dict[str, Path]) -> Iterator[TinyArtifact]:
    made = tiny_artifact(adapters)
    yield made
    made.mixture.release()
