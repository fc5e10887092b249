"""Merged mixtures: what is kept of them, when they pay, and that nothing of them stays in the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from transformers import LlamaForCausalLM

from mocae.bank import ExpertBank
from mocae.bank import merged as merging
from mocae.bank.linear import BankLinear
from mocae.errors import ConfigError
from tiny import random_ids

ALPHA = torch.tensor([0.3, -0.5, 0.8])


@pytest.fixture
def ids() -> torch.Tensor:
    return random_ids(2, 5)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_stacked_merged_and_per_token_are_one(bank: ExpertBank, model: LlamaForCausalLM, ids: torch.Tensor) -> None:
    outputs = []
    for alpha in (ALPHA, ALPHA.expand(2, -1), ALPHA.expand(2, 5, -1)):
        for mode in ("stacked", "merged"):
            with bank.weights(alpha, mode=mode):  # type: ignore[arg-type]
                outputs.append(model(ids).logits)
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], atol=1e-4, rtol=1e-4)
    assert (model(ids).logits - outputs[0]).abs().max() > 0.01


def test_a_mixture_kept_is_merged_once_and_the_oldest_goes(
    bank: ExpertBank, model: LlamaForCausalLM, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made: list[str] = []
    merged = BankLinear.merged
    monkeypatch.setattr(BankLinear, "merged", lambda self, a: made.append(self.name) or merged(self, a))
    with bank.merged(ALPHA):
        first = model(ids).logits
    n_linears = len(made)
    assert n_linears == len(bank.adapted)
    one = sum(m.weight.numel() * m.weight.element_size() for m in bank.adapted)
    bank.keep_merged(2 * one)
    for alpha in (ALPHA, ALPHA + 1, ALPHA, ALPHA + 2, ALPHA):
        with bank.merged(alpha):
            last = model(ids).logits
    assert len(made) == 4 * n_linears  # ALPHA once more, since it was not kept before; then two others
    assert torch.equal(last, first)
    assert bank._kept.n_bytes == 2 * one
    assert ALPHA in bank._kept
    assert ALPHA + 1 not in bank._kept
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    bank.keep_merged(one - 1)
    assert len(bank._kept) == 0
    with bank.merged(ALPHA):
        pass
    assert len(bank._kept) == 0  # larger than the bound


def test_linears_of_experts_without_weight_are_left_alone(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    before = {name: module.weight for name, module in model.named_modules() if module in bank.adapted}
    with bank.merged(torch.tensor([0.0, 1.0, 0.0])):  # q_proj and v_proj
        changed = {name.rsplit(".", 1)[1] for name, weight in before.items() if _at(model, name) is not weight}
    assert changed == {"q_proj", "v_proj"}
    assert all(_at(model, name) is weight for name, weight in before.items())


def test_merging_pays_for_what_is_long_or_kept(bank: ExpertBank, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bank.merging_pays(ALPHA, 1000)
    assert not bank.merging_pays(ALPHA, 20)
    assert not bank.merging_pays(ALPHA, None)
    assert not bank.merging_pays(torch.zeros(3), 1000)
    monkeypatch.setattr("mocae.bank.bank.has_room", lambda n_bytes, device: False)
    assert not bank.merging_pays(ALPHA, 1000)
    bank.keep_merged(10**9)
    with bank.merged(ALPHA):
        assert not bank.merging_pays(ALPHA, 1000)
    assert bank.merging_pays(ALPHA, 1)


def test_auto_merges_equal_rows_only(bank: ExpertBank) -> None:
    for alpha, merged in ((ALPHA.expand(2, -1), True), (torch.stack([ALPHA, -ALPHA]), False), (None, False)):
        with bank.weights(alpha, mode="auto", new_tokens=1000):
            assert bank._merged is merged
            assert (bank.alpha is None) is (merged or alpha is None)
        assert not bank._merged


def test_modes_and_bounds_that_make_no_sense_are_refused(bank: ExpertBank) -> None:
    with pytest.raises(ConfigError, match="rows with different weights"), bank.weights(torch.eye(3), mode="merged"):
        pass
    with pytest.raises(ConfigError, match="no rows"), bank.weights(torch.zeros(0, 3), mode="auto"):
        pass
    with pytest.raises(ConfigError, match="-1 bytes"):
        bank.keep_merged(-1)


def test_room_is_told_by_the_system() -> None:
    assert merging.has_room(1, torch.device("cpu"))
    assert not merging.has_room(1 << 60, torch.device("cpu"))


def _at(model: LlamaForCausalLM, name: str) -> torch.nn.Parameter:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.nn.Parameter)
    return weight
