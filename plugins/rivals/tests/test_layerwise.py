"""Averaging with other weights in each block of layers, given or fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dense_for_tests import assert_same
from mocae.bank import ExpertBank
from mocae.errors import ConfigError, TrainingError
from mocae.merging import TaskVector, applied, average
from mocae_rivals.layerwise import block_of, hma, layer_blocks
from mocae_rivals.layerwise_fit import block_weights_in_force, fit_block_weights
from tiny import random_ids, tiny_llama

Vectors = dict[str, TaskVector]


def test_equal_blocks_are_plain_averaging(vectors: Vectors) -> None:
    two = {name: vectors[name] for name in ("a", "c")}
    share = {"a": 0.25, "c": 0.75}
    assert_same(hma(two, blocks=[share] * 3, boundaries=[1, 3]), average(two, weights=share))


def test_each_block_has_its_own_weights(vectors: Vectors) -> None:
    a, b = vectors["a"], vectors["b"]
    merged = hma({"a": a, "b": b}, blocks=[{"a": 1.0}, {}, {"a": 0.25, "b": -0.5}], boundaries=[1, 3])
    for module in b.modules:
        layer = int(module.split(".")[2])
        expected = {0: a.dense(module), 3: 0.25 * a.dense(module) - 0.5 * b.dense(module)}
        torch.testing.assert_close(merged.dense(module), expected.get(layer, torch.zeros(a.shape(module))))


def test_a_bank_with_block_weights_is_the_merged_model(adapters: dict[str, Path], vectors: Vectors) -> None:
    model, ids, names = tiny_llama(), random_ids(2, 6), ["a", "b", "c"]
    weights = torch.tensor([[1.0, 0.0, 0.5], [-0.3, 0.8, 1.0]])
    blocks = [dict(zip(names, row, strict=True)) for row in weights.tolist()]
    with torch.no_grad():
        with applied(model, hma({n: vectors[n] for n in names}, blocks=blocks, boundaries=[2])):
            merged = model(ids).logits
        bank = ExpertBank.attach(model, {name: adapters[name] for name in names})
        with block_weights_in_force(bank, weights, boundaries=[2]):
            torch.testing.assert_close(model(ids).logits, merged, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(model(ids).logits, merged, atol=1e-4, rtol=1e-4)  # a second pass starts over
    assert bank.alpha is None
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


def test_block_weights_are_fitted_on_a_loss(adapters: dict[str, Path]) -> None:
    model, ids = tiny_llama(), random_ids(2, 6)
    bank = ExpertBank.attach(model, {"a": adapters["a"]})
    target = torch.tensor([[0.8], [0.2]])  # mean 0.5
    with torch.no_grad(), block_weights_in_force(bank, target, boundaries=[2]):
        wanted = model(ids).logits

    def loss(weights: Tensor) -> Tensor:
        with block_weights_in_force(bank, weights, boundaries=[2]):
            return (model(ids).logits - wanted).square().mean()

    fit = fit_block_weights(loss, mean=torch.tensor([0.5]), n_blocks=2, steps=25, lr=0.3)
    torch.testing.assert_close(fit.weights.mean(0), torch.tensor([0.5]))
    torch.testing.assert_close(fit.weights, target, atol=0.05, rtol=0)
    assert min(fit.losses) < 0.1 * fit.losses[0]


def test_the_first_step_is_equal_blocks() -> None:
    mean = torch.tensor([0.3, -0.2])
    fit = fit_block_weights(lambda w: w.square().sum(), mean=mean, n_blocks=3, steps=1, lr=0.1)
    torch.testing.assert_close(fit.weights, mean.expand(3, 2))
    assert len(fit.losses) == 1


@pytest.mark.parametrize(
    ("n_layers", "n_blocks", "boundaries"), [(32, 3, [11, 21]), (4, 1, []), (4, 4, [1, 2, 3]), (5, 2, [2])]
)
def test_layers_are_cut_evenly(n_layers: int, n_blocks: int, boundaries: list[int]) -> None:
    assert layer_blocks(n_layers, n_blocks) == boundaries


def test_linears_outside_the_layers_belong_to_the_highest_block() -> None:
    assert [block_of(name, [2, 3]) for name in ("layers.0.q", "layers.2.q", "layers.9.q", "lm_head")] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"blocks": [{"a": 1.0}], "boundaries": [2]}, r"1 blocks of weights do not fit boundaries \[2\]"),
        ({"blocks": [], "boundaries": []}, "0 blocks of weights"),
        ({"blocks": [{"a": 1.0}] * 3, "boundaries": [2, 2]}, r"boundaries \[2, 2\] must rise"),
        ({"blocks": [{"a": 1.0}] * 2, "boundaries": [0]}, r"boundaries \[0\] must rise"),
        ({"blocks": [{"a": 1.0}, {"z": 1.0}], "boundaries": [1]}, "unknown expert 'z'"),
        ({"blocks": [{"a": 0.0}, {}], "boundaries": [1]}, "all weights of a are 0"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(vectors: Vectors, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        hma({"a": vectors["a"]}, **options)


def test_fits_that_cannot_be_are_refused(adapters: dict[str, Path]) -> None:
    mean = torch.tensor([0.5])
    with pytest.raises(ConfigError, match="n_blocks 1"):
        fit_block_weights(lambda w: w.sum(), mean=mean, n_blocks=1, steps=1, lr=0.1)
    with pytest.raises(ConfigError, match="requires_grad=False"):
        fit_block_weights(lambda w: w.detach().sum(), mean=mean, n_blocks=2, steps=1, lr=0.1)
    with pytest.raises(TrainingError, match="nan at step 0"):
        fit_block_weights(lambda w: w.sum() * float("nan"), mean=mean, n_blocks=2, steps=1, lr=0.1)
    with pytest.raises(ConfigError, match="4 layers cannot be cut into 5 blocks"):
        layer_blocks(4, 5)
    bank = ExpertBank.attach(tiny_llama(), {"a": adapters["a"]})
    with (
        pytest.raises(ConfigError, match=r"boundaries \[4\] do not cut 4 layers into 2 blocks"),
        block_weights_in_force(bank, torch.ones(2, 1), boundaries=[4]),
    ):
        pass
