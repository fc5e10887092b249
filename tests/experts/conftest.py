from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mocae.models import LoadedBase
from tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def base() -> LoadedBase:
    """A fresh tiny Llama with its tokenizer."""
    return LoadedBase(tiny_llama(layers=2), tiny_tokenizer())


@pytest.fixture(scope="package", autouse=True)
def _quick_collection() -> Iterator[None]:
    """Keep what is loaded out of garbage collection, which the trainer runs each time: half the time of a tiny run."""
    gc.freeze()
    yield
    gc.unfreeze()
