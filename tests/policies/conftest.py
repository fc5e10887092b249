"""Three experts on the upper two of four layers of one tiny Llama, and a policy that reads what enters them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mocae.bank import ExpertBank
from mocae.models import LoadedBase
from mocae.policies import Mixture
from reading_policy import ReadingPolicy
from tiny import tiny_adapter, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="session")
def upper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEFT folders of experts on layers 2 and 3, by name; never written to."""
    root, model = tmp_path_factory.mktemp("upper"), tiny_llama()
    return {
        name: tiny_adapter(model, root / name, seed=seed, r=r, layers_to_transform=[2, 3])
        for seed, (name, r) in enumerate({"helpful": 4, "harmless": 2, "honest": 3}.items())
    }


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same experts on every layer, as imported adapters are."""
    root, model = tmp_path_factory.mktemp("whole"), tiny_llama()
    return {name: tiny_adapter(model, root / name, seed=i) for i, name in enumerate(("helpful", "harmless", "honest"))}


@pytest.fixture
def policy() -> ReadingPolicy:
    return ReadingPolicy(2)


@pytest.fixture
def mixture(upper: dict[str, Path], policy: ReadingPolicy) -> Iterator[Mixture]:
    base = LoadedBase(tiny_llama(), tiny_tokenizer())
    made = Mixture(base, ExpertBank.attach(base.model, upper), policy)
    yield made
    made.release()
