"""MeZO: the step is the slope along a replayed direction, training lowers the loss, and nothing holds a gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mocae.bank import load_peft
from mocae.errors import DataError, TrainingError
from mocae.experts import LoraSpec, Optimisation
from mocae.models import LoadedBase
from mocae_rivals.mezo import finetune_forward_only, spsa_step
from tiny import tiny_llama, tiny_tokenizer

PAIRS = [{"prompt": f"Q: {letter}?\nA:", "completion": " no"} for letter in "abcdefgh"]
LORA = LoraSpec(r=2, lora_alpha=8.0)
OPTIMISATION = Optimisation(
    learning_rate=2e-3, epochs=40.0, batch_size=8, warmup_ratio=0.0, max_length=32, lr_scheduler="constant"
)


@pytest.fixture
def base() -> LoadedBase:
    return LoadedBase(tiny_llama(layers=2), tiny_tokenizer())


def train(base: LoadedBase, folder: Path, **changes: Any) -> Any:
    given: dict[str, Any] = {"lora": LORA, "optimisation": OPTIMISATION, "perturbation": 1e-2, "seed": 0}
    return finetune_forward_only(base, PAIRS, folder, **(given | changes), label="a", base_name="tiny")


def test_one_step_goes_down_the_slope_along_its_direction() -> None:
    p = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    start, scale = p.detach().clone(), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    z = torch.randn(3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    mean = spsa_step([p], lambda: (scale * p.square()).sum(), perturbation=1e-3, learning_rate=0.1, seed=7)
    slope = float((2 * scale * start) @ z)  # exact: the odd terms of a square cancel
    torch.testing.assert_close(p.detach(), start - 0.1 * slope * z)
    assert mean == pytest.approx(float((scale * start.square()).sum()), rel=1e-4)


def test_weight_decay_shrinks_and_a_flat_loss_moves_nothing() -> None:
    p = nn.Parameter(torch.ones(4))
    spsa_step([p], lambda: 1.0, perturbation=1e-3, learning_rate=0.5, weight_decay=0.1, seed=1)
    torch.testing.assert_close(p.detach(), torch.full((4,), 0.95))


def test_the_loss_falls_and_the_base_model_stays(base: LoadedBase, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    record = train(base, tmp_path)
    assert record.n_steps == 40
    assert record.last_loss < record.first_loss - 0.1
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert load_peft(tmp_path).n_parameters == record.n_parameters


def test_the_same_seed_gives_the_same_adapter(base: LoadedBase, tmp_path: Path) -> None:
    short = Optimisation(learning_rate=2e-3, epochs=3.0, batch_size=3, max_length=32)
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        train(base, tmp_path / name, optimisation=short, seed=seed)
    one, two, other = ((tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_accumulated_batches_are_one_step(base: LoadedBase, tmp_path: Path) -> None:
    for name, sizes in (("whole", (8, 1)), ("parts", (2, 4))):
        (tmp_path / name).mkdir()
        sized = Optimisation(
            learning_rate=2e-3, epochs=3.0, batch_size=sizes[0], gradient_accumulation=sizes[1], max_length=32
        )
        train(base, tmp_path / name, optimisation=sized)
    whole, parts = load_peft(tmp_path / "whole"), load_peft(tmp_path / "parts")
    for module, pair in whole.layers.items():
        torch.testing.assert_close(parts.layers[module].B, pair.B, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_trained_is_told(base: LoadedBase, tmp_path: Path) -> None:
    wild = Optimisation(learning_rate=1e30, epochs=4.0, batch_size=8, max_length=32, lr_scheduler="constant")
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf).*Lower experts\.optimizer\.learning_rate"):
        train(base, tmp_path, optimisation=wild)
    with pytest.raises(DataError, match="no training rows"):
        finetune_forward_only(
            base, [], tmp_path, lora=LORA, optimisation=wild, perturbation=1e-3, seed=0, label="a", base_name="t"
        )
