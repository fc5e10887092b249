"""Three experts that differ in rank, targets, layers and scaling rule, on one tiny random Llama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from mocae.bank import ExpertBank
from tiny import ALL_LINEARS, tiny_adapter, tiny_llama


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEFT folders of the experts, by name; never written to."""
    root, model = tmp_path_factory.mktemp("experts"), tiny_llama()
    return {
        "all": tiny_adapter(model, root / "all", seed=1, r=4, targets=ALL_LINEARS),
        "rslora": tiny_adapter(
            model, root / "rslora", seed=2, r=3, targets=("q_proj", "v_proj"), use_rslora=True, lora_alpha=5
        ),
        "pattern": tiny_adapter(
            model,
            root / "pattern",
            seed=3,
            r=2,
            targets=("k_proj", "up_proj", "down_proj"),
            layers_to_transform=[2, 3],
            rank_pattern={"layers.2.mlp.up_proj": 5, "k_proj": 1},
            alpha_pattern={"down_proj": 7},
        ),
    }


@pytest.fixture
def model() -> LlamaForCausalLM:
    """A fresh copy of the base model of `folders`."""
    return tiny_llama()


@pytest.fixture(params=[True, False], ids=["fused", "unfused"])
def bank(request: pytest.FixtureRequest, model: LlamaForCausalLM, folders: dict[str, Path]) -> Iterator[ExpertBank]:
    """The three experts attached to `model`, in both ways of computing them."""
    attached = ExpertBank.attach(model, folders, fused=request.param)
    yield attached
    attached.detach()
