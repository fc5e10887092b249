"""Adapters on disk: what PEFT wrote is read, what we write PEFT reads, and what is no plain LoRA is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mocae.bank import LoraPair, LoraWeights, load_peft, save_peft
from mocae.errors import ArtifactError, ConfigError, ModelMismatchError
from tiny import random_ids, tiny_llama, with_peft


def _same(one: LoraWeights, other: LoraWeights) -> bool:
    pairs = zip(one.layers.items(), other.layers.items(), strict=True)
    return all(
        name == name2 and p.scaling == q.scaling and torch.equal(p.A, q.A) and torch.equal(p.B, q.B)
        for (name, p), (name2, q) in pairs
    )


@pytest.fixture
def edited(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies an adapter with some config keys changed."""

    def edit(**changes: Any) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(folders["all"], folder)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return edit


def test_scalings_and_ranks_are_those_of_peft(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        weights = load_peft(folder, name=name)
        modules = dict(with_peft(tiny_llama(), folder).base_model.model.named_modules())
        for module, pair in weights.layers.items():
            assert pair.scaling == pytest.approx(modules[module].scaling["default"], rel=1e-12)
            assert torch.equal(pair.A, modules[module].lora_A["default"].weight)
            torch.testing.assert_close(pair.delta(), modules[module].get_delta_weight("default"))
        adapted = {n for n, m in modules.items() if hasattr(m, "lora_A")}
        assert set(weights.layers) == adapted


@pytest.mark.parametrize("name", ["all", "rslora", "pattern"])
def test_saved_is_read_back_bit_for_bit(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    weights = load_peft(folders[name], name=name)
    again = load_peft(save_peft(weights, tmp_path / name, base_model_name="some/base"))
    assert _same(weights, again)
    assert (again.name, again.base_model) == (name, "some/base")
    assert (again.r, again.lora_alpha, again.use_rslora) == (weights.r, weights.lora_alpha, weights.use_rslora)


@pytest.mark.parametrize("name", ["all", "rslora", "pattern"])
def test_peft_reads_what_is_saved(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = save_peft(load_peft(folders[name]), tmp_path / "saved")
    ids = random_ids(2, 6)
    with torch.no_grad():
        expected = with_peft(tiny_llama(), folders[name])(ids).logits
        assert torch.equal(with_peft(tiny_llama(), folder)(ids).logits, expected)


def test_layers_come_in_the_order_of_the_model(folders: dict[str, Path], tmp_path: Path) -> None:
    pair = LoraPair(torch.ones(1, 2), torch.ones(3, 1), scaling=2.0)
    names = [f"model.layers.{i}.q_proj" for i in (0, 2, 10)]
    weights = LoraWeights("x", 1, 2.0, use_rslora=False, base_model=None, layers=dict.fromkeys(reversed(names), pair))
    assert list(load_peft(save_peft(weights, tmp_path)).layers) == names


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"trainable_token_indices": [3]}, r"trainable_token_indices is \[3\]"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
        ({"r": 5}, "has rank 4 in its weights but 5"),
    ],
)
def test_more_than_lora_is_refused_by_name(edited: Callable[..., Path], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelMismatchError, match=rf"expert 'harmless'.*{told}"):
        load_peft(edited(**changes), name="harmless")


def test_tensors_that_are_no_lora_factor_are_refused(edited: Callable[..., Path]) -> None:
    folder = edited()
    path = folder / "adapter_model.safetensors"
    key = "base_model.model.model.embed_tokens.lora_embedding_A"
    save_file(load_file(path) | {key: torch.ones(2, 3)}, path)
    with pytest.raises(ModelMismatchError, match=f"expert 'x': '{key}'"):
        load_peft(folder, name="x")


def test_missing_and_damaged_files_are_refused(edited: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"expert 'nothing'.*no adapter_config.json"):
        load_peft(tmp_path / "nothing")
    folder = edited()
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="damaged"):
        load_peft(folder)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"no adapter_model.safetensors"):
        load_peft(folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match=r"adapter_model.bin is a pickle and is never opened"):
        load_peft(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("r", float("nan"), r"damaged \(not JSON: expected value"),
        ("r", 0, r"damaged \(r: .*greater than or equal to 1\); save the adapter again"),
        ("lora_alpha", True, r"\(lora_alpha"),
        ("lora_alpha", 10**30, r"\(lora_alpha"),
        ("use_rslora", "yes", r"\(use_rslora"),
        ("base_model_name_or_path", ["a"], r"\(base_model_name_or_path"),
        ("rank_pattern", [1], r"\(rank_pattern: .*dictionary"),
        ("rank_pattern", {"q_proj": 2.5}, r"\(rank_pattern\.q_proj"),
        ("alpha_pattern", {"q_proj": "4"}, r"\(alpha_pattern\.q_proj"),
        ("alpha_pattern", {"q_proj(": 4}, r"'q_proj\(' is no expression that is read \(missing \)"),
        ("alpha_pattern", {"(?=q)q_proj": 4}, r"a group that is more than a group"),
        ("alpha_pattern", {r"(q)\1": 4}, r"stands for no character"),
        ("rank_pattern", {"a" * 1001: 4}, r"longer than 1000 characters"),
        ("rank_pattern", {f"a*{i}" + "x" * 900: 4 for i in range(99)}, r"99 expressions for 28 modules are too many"),
    ],
)
def test_a_config_nobody_vouches_for_is_refused(
    edited: Callable[..., Path], key: str, value: object, message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_peft(edited(**{key: value}))


def test_an_expert_of_nothing_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'empty' adapts no linear"):
        save_peft(LoraWeights("empty", 1, 1.0, use_rslora=False, base_model=None, layers={}), tmp_path)
