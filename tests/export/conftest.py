"""A bundle of unlike adapters on a tiny random Llama: unequal ranks, rsLoRA, patterns, other targets and layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from export_for_tests import bundle_on
from mocae.export import Bundle
from mocae.models import LoadedBase, load_base
from run_for_tests import tiny_base
from tiny import ATTENTION, tiny_adapter


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> dict[str, Path]:
    root, model = tmp_path_factory.mktemp("adapters"), load_base(base_folder, dtype="fp32").model
    return {
        "all": tiny_adapter(model, root / "all", seed=1, r=4, lora_alpha=5),
        "rslora": tiny_adapter(model, root / "rslora", seed=2, r=3, targets=ATTENTION, use_rslora=True, lora_alpha=5),
        "pattern": tiny_adapter(
            model,
            root / "pattern",
            seed=3,
            r=2,
            targets=("k_proj", "up_proj", "down_proj"),
            layers_to_transform=[1, 2],
            rank_pattern={"layers.2.mlp.up_proj": 5, "k_proj": 1},
            alpha_pattern={"down_proj": 7},
        ),
    }


@pytest.fixture
def base(base_folder: Path) -> LoadedBase:
    return load_base(base_folder, dtype="fp32", device="cpu")


@pytest.fixture
def bundle(base: LoadedBase, base_folder: Path, adapters: dict[str, Path]) -> Bundle:
    return bundle_on(base, base_folder, adapters)
