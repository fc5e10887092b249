"""PEFT's mixtures against the bank, which is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from choices_for_tests import assert_scores, one_by_one
from mocae.bank import ExpertBank
from mocae.errors import ConfigError, DataError, TrainingError
from mocae.experts import given_back
from mocae.models import LoadedBase, PlainModel
from mocae_rivals.arrow import on_arrow
from mocae_rivals.xlora import XLoraMixture, XLoraOptions, on_xlora, scaling_head, train_xlora
from tiny import ALL_LINEARS, random_ids, tiny_adapter, tiny_llama

IDS = random_ids(3, 9, seed=4)
ROWS = [(f"{word * (1 + i % 3)} ", "ok", axis) for i in range(4) for axis, word in enumerate(("aaaa", "mmmm", "zzzz"))]
SETTINGS: dict[str, Any] = {"learning_rate": 0.05, "epochs": 1, "batch_size": 4, "max_length": 64, "seed": 0}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return found


def banked(folders: list[Path], weights: Tensor) -> Tensor:
    model = tiny_llama()
    bank = ExpertBank.attach(model, {str(k): folder for k, folder in enumerate(folders)})
    with bank.weights(weights):
        return logits(model)


@pytest.mark.parametrize("layerwise", [False, True])
def test_an_x_lora_of_equal_weights_is_the_uniform_bank(base: LoadedBase, folders: list[Path], layerwise: bool) -> None:
    with given_back(base.model):
        wrapped = on_xlora(base.model, folders, options=XLoraOptions(layerwise_scalings=layerwise))
        with torch.no_grad():
            for parameter in scaling_head(wrapped).parameters():
                parameter.zero_()
        found = logits(wrapped)
    torch.testing.assert_close(found, banked(folders, torch.full((3,), 1 / 3)), atol=1e-4, rtol=1e-4)


def test_x_lora_trains_its_head_alone_and_gives_the_base_back(base: LoadedBase, folders: list[Path]) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    untouched = logits(base.model)
    use_cache = base.model.config.use_cache
    with given_back(base.model):
        wrapped = on_xlora(base.model, folders, options=XLoraOptions(xlora_depth=2, xlora_size=8))
        frozen = {n: p.detach().clone() for n, p in wrapped.named_parameters() if ".lora_" in n}
        head = [parameter.detach().clone() for parameter in scaling_head(wrapped).parameters()]
        record = train_xlora(base, wrapped, ROWS, **SETTINGS)
        assert record.n_steps == 3
        assert record.gradient_norm > 0
        assert not record.collapsed
        assert not all(map(torch.equal, scaling_head(wrapped).parameters(), head))
        assert all(torch.equal(dict(wrapped.named_parameters())[n], value) for n, value in frozen.items())
        mixture = XLoraMixture(base, wrapped, "abc")
        out, weights, *_ = mixture.generate(IDS, max_new_tokens=3, do_sample=False)
        assert out.shape == (3, 12)
        torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert base.model.config.use_cache is use_cache
    assert base.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    assert torch.equal(logits(base.model), untouched)


def test_an_x_lora_of_one_expert_a_token_tells_the_shares_in_use(base: LoadedBase, folders: list[Path]) -> None:
    with given_back(base.model):
        wrapped = on_xlora(base.model, folders, options=XLoraOptions(top_k=1))
        with torch.no_grad():
            for parameter in scaling_head(wrapped).parameters():
                parameter.zero_()
            scaling_head(wrapped)[-1].bias[1] = 0.01  # nearly even, and the second is the largest for every token
        weights = XLoraMixture(base, wrapped, "abc").generate(IDS, max_new_tokens=1, do_sample=False).weights
        torch.testing.assert_close(weights, torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3))
        assert train_xlora(base, wrapped, ROWS, **(SETTINGS | {"learning_rate": 1e-6})).collapsed


def test_choices_are_scored_with_every_token_weighed(base: LoadedBase, folders: list[Path]) -> None:
    plain = one_by_one(base.model)
    with given_back(base.model):
        wrapped = on_xlora(base.model, folders, options=XLoraOptions(xlora_depth=2, xlora_size=8))
        expected = one_by_one(wrapped)
        assert_scores(XLoraMixture(base, wrapped, "abc"), expected)
    assert expected != plain
    with given_back(base.model):
        arrow: Any = on_arrow(base.model, folders, top_k=1)
        expected = one_by_one(arrow)
        released: list[str] = []
        model = PlainModel(
            LoadedBase(arrow, base.tokenizer, base.description),
            each_token=True,
            on_release=lambda: released.append("base"),
        )
        assert_scores(model, expected)
        model.release()
    assert (released, expected != plain) == (["base"], True)


def test_an_x_lora_whose_experts_do_nothing_is_refused(base: LoadedBase, tmp_path: Path) -> None:
    same = tiny_adapter(base.model, tmp_path / "same")  # softmax over equal experts: the head makes no difference
    with given_back(base.model):
        wrapped = on_xlora(base.model, [same])
        with pytest.raises(TrainingError, match="X-LoRA head: it received no gradient"):
            train_xlora(base, wrapped, ROWS, **SETTINGS)
        with pytest.raises(DataError, match="X-LoRA head: it needs training rows, got none"):
            train_xlora(base, wrapped, [], **SETTINGS)


def test_an_arrow_of_one_expert_is_that_expert(base: LoadedBase, folders: list[Path]) -> None:
    with given_back(base.model):
        found = logits(on_arrow(base.model, folders[:1], top_k=3))
    torch.testing.assert_close(found, banked(folders[:1], torch.ones(1)), atol=1e-4, rtol=1e-4)


def test_a_hot_arrow_is_the_uniform_bank_and_a_cold_one_is_not(base: LoadedBase, folders: list[Path]) -> None:
    uniform = banked(folders, torch.full((3,), 1 / 3))
    with given_back(base.model):
        hot = logits(on_arrow(base.model, folders, top_k=3, temperature=1e6))
    with given_back(base.model):
        cold = logits(on_arrow(base.model, folders, top_k=1))
    torch.testing.assert_close(hot, uniform, atol=1e-3, rtol=1e-3)
    assert (cold - uniform).abs().max() > 0.01


def test_experts_that_do_not_fit_are_refused(base: LoadedBase, folders: list[Path], tmp_path: Path) -> None:
    wide = tiny_adapter(base.model, tmp_path / "wide", r=8, targets=ALL_LINEARS, layers_to_transform=[2, 3])
    with given_back(base.model), pytest.raises(ConfigError, match=r"Arrow needs experts of one rank .*\[4, 8\]"):
        on_arrow(base.model, [folders[0], wide], top_k=1)
    with pytest.raises(ConfigError, match="X-LoRA: top_k is 4, but there are 3 experts"):
        on_xlora(base.model, folders, options=XLoraOptions(top_k=4))
