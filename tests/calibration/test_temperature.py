from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mocae.calibration import fit_temperature
from mocae.errors import DataError


def drawn(n: int, experts: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits, and outcomes whose chance for the first choice is its softmax at `temperature`; others at random."""
    generator = torch.Generator().manual_seed(experts)
    logits = 4 * torch.randn(n, experts, generator=generator)
    sure, top = (logits / temperature).softmax(1).max(1)
    chance = torch.full_like(logits, 0.5).scatter(1, top[:, None], sure[:, None])
    return logits, torch.rand(logits.shape, generator=generator) < chance


@pytest.mark.parametrize(("experts", "temperature"), [(2, 0.5), (3, 1.0), (3, 4.0), (5, 2.0)])
def test_a_known_temperature_is_found(experts: int, temperature: float) -> None:
    assert fit_temperature(*drawn(4_000, experts, temperature)) == pytest.approx(temperature, rel=0.12)


def test_three_of_four_right_by_hand() -> None:
    logits = torch.tensor([[4.0, 0.0]] * 4)
    acceptable = torch.tensor([[True, False]] * 3 + [[False, False]])
    assert fit_temperature(logits, acceptable) == pytest.approx(4 / math.log(3), rel=0.01)  # sigmoid(4 / T) = 3/4


def test_only_the_first_choice_counts_and_the_order_of_experts_does_not() -> None:
    logits, acceptable = drawn(500, 3, 2.0)
    fitted = fit_temperature(logits, acceptable)
    others = acceptable.scatter(1, logits.argmin(1, keepdim=True), True)
    assert fit_temperature(logits, others) == fitted
    order = torch.tensor([2, 0, 1])
    assert fit_temperature(logits[:, order], acceptable[:, order]) == pytest.approx(fitted)
    assert fit_temperature(3 * logits, acceptable) == pytest.approx(3 * fitted, rel=0.01)


def test_always_and_never_right_are_the_ends() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 4)
    assert fit_temperature(logits, torch.ones(4, 2, dtype=torch.bool)) == pytest.approx(0.05)
    assert fit_temperature(logits, torch.zeros(4, 2, dtype=torch.bool)) == pytest.approx(20.0)


def test_no_prompts_are_refused() -> None:
    with pytest.raises(DataError, match=r"no held-out prompts.*routing.temperature"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool))
