"""Three experts in the feed-forward blocks of the upper layers of one tiny random Llama."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.models import LoadedBase
from mocae.trinityx import TrinityXRouter
from tiny import tiny_adapter, tiny_llama, tiny_tokenizer

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
LAYERS = (2, 3)
MakeRouter = Callable[..., TrinityXRouter]


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, model = tmp_path_factory.mktemp("feed-forward"), tiny_llama()
    return {
        name: tiny_adapter(
            model, root / name, seed=seed, r=seed + 1, targets=FEED_FORWARD, layers_to_transform=list(LAYERS)
        )
        for seed, name in enumerate("abc")
    }


@pytest.fixture
def base() -> LoadedBase:
    return LoadedBase(tiny_llama(), tiny_tokenizer())


@pytest.fixture
def bank(base: LoadedBase, experts: dict[str, Path]) -> Iterator[ExpertBank]:
    attached = ExpertBank.attach(base.model, experts)
    yield attached
    attached.detach()


@pytest.fixture
def make_router() -> MakeRouter:
    """Return a function that makes a router for `experts`; `random` gives it weights that route every token."""

    def make(*, random: bool = False, gamma: tuple[float, ...] = (1.0, 1.0, 1.0), **options: object) -> TrinityXRouter:
        router = TrinityXRouter(
            "abc"[: len(gamma)],
            layers=LAYERS,
            hidden_size=32,
            gamma=torch.tensor(gamma),
            **options,  # type: ignore[arg-type]
        )
        if random:
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                router.weight.copy_(torch.randn(router.weight.shape, generator=generator))
        return router.requires_grad_(False)

    return make
