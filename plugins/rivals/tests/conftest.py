"""Three experts in the upper layers of one tiny random Llama, and rows to train routers on."""

from __future__ import annotations

from pathlib import Path

import pytest

from merging.conftest import adapters, experts, vectors
from mocae.models import LoadedBase
from pipelines.conftest import copy, finished, work
from tiny import tiny_adapter, tiny_llama, tiny_tokenizer

__all__ = ["adapters", "copy", "experts", "finished", "vectors", "work"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root, model = tmp_path_factory.mktemp("mixtures"), tiny_llama()
    return [tiny_adapter(model, root / name, seed=k, layers_to_transform=[2, 3]) for k, name in enumerate("abc")]


@pytest.fixture
def base() -> LoadedBase:
    return LoadedBase(tiny_llama(), tiny_tokenizer())
