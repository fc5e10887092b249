"""Two experts that differ in rank, targets, layers and scaling rule, and two alike, as task vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocae.bank import LoraWeights, load_peft
from mocae.merging import TaskVector
from tiny import ALL_LINEARS, tiny_adapter, tiny_llama


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEFT folders by name for `tiny_llama()`: "a", "b", "c" overlap in part; "a" and "twin" have equal ranks."""
    root, model = tmp_path_factory.mktemp("merging"), tiny_llama()
    return {
        "a": tiny_adapter(model, root / "a", seed=1, r=4, targets=ALL_LINEARS),
        "b": tiny_adapter(model, root / "b", seed=2, r=3, targets=("q_proj", "v_proj"), use_rslora=True, lora_alpha=5),
        "c": tiny_adapter(
            model, root / "c", seed=3, r=2, targets=("k_proj", "v_proj", "up_proj"), layers_to_transform=[2, 3]
        ),
        "twin": tiny_adapter(model, root / "twin", seed=4, r=4, targets=ALL_LINEARS),
    }


@pytest.fixture(scope="session")
def experts(adapters: dict[str, Path]) -> dict[str, LoraWeights]:
    """The adapters in memory."""
    return {name: load_peft(folder, name=name) for name, folder in adapters.items()}


@pytest.fixture(scope="session")
def vectors(experts: dict[str, LoraWeights]) -> dict[str, TaskVector]:
    """Their task vectors."""
    return {name: TaskVector.from_lora(expert) for name, expert in experts.items()}
