"""Several experts as one adapter: exact by concatenation, and the best of a smaller rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mocae.bank import ExpertBank, LoraPair, LoraWeights, combine, load_peft, save_peft, truncate
from mocae.errors import ConfigError, ModelMismatchError
from tiny import random_ids, tiny_adapter, tiny_llama, with_peft


def _experts(folders: dict[str, Path]) -> dict[str, LoraWeights]:
    return {name: load_peft(folder, name=name) for name, folder in folders.items()}


def _one_layer(out: int, r: int, features: int, seed: int = 0) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    pair = LoraPair(
        torch.randn(r, features, generator=generator), torch.randn(out, r, generator=generator), scaling=0.5
    )
    return LoraWeights("one", r, r / 2, use_rslora=False, base_model=None, layers={"q_proj": pair})


def test_combined_is_the_bank_with_constant_weights_even_in_peft(folders: dict[str, Path], tmp_path: Path) -> None:
    alpha, ids = torch.tensor([0.7, -0.4, 1.3]), random_ids(2, 6)
    folder = save_peft(combine(_experts(folders), alpha), tmp_path)
    model = tiny_llama()
    with torch.no_grad():
        by_peft = with_peft(model, folder)(ids).logits
        with ExpertBank.attach(model, folders).weights(alpha):
            torch.testing.assert_close(model(ids).logits, by_peft, atol=1e-5, rtol=1e-5)


def test_the_mean_of_the_factors_is_not_the_mean_of_the_experts(tmp_path: Path) -> None:
    model, half = tiny_llama(layers=1), torch.tensor([0.5, 0.5])
    experts = {str(s): load_peft(tiny_adapter(model, tmp_path / str(s), seed=s, r=4)) for s in (1, 2)}
    one, two = experts.values()
    for name, pair in combine(experts, half).layers.items():
        mean = (one.layers[name].delta() + two.layers[name].delta()) / 2
        mean_a, mean_b = (one.layers[name].A + two.layers[name].A) / 2, (one.layers[name].B + two.layers[name].B) / 2
        torch.testing.assert_close(pair.delta(), mean)
        assert (one.layers[name].scaling * mean_b @ mean_a - mean).norm() > 0.5 * mean.norm()


def test_an_expert_of_weight_zero_is_left_out(folders: dict[str, Path]) -> None:
    combined = combine(_experts(folders), torch.tensor([0.0, 2.0, 0.0]))
    assert {name: pair.r for name, pair in combined.layers.items()} == {
        name: pair.r for name, pair in load_peft(folders["rslora"]).layers.items()
    }


@pytest.mark.parametrize(
    ("alpha", "told"),
    [
        ([1.0, 2.0], "give 3 finite numbers"),
        ([1.0, float("nan"), 0.0], "nan"),
        ([0.0, 0.0, 0.0], "all weights of all,"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folders: dict[str, Path], alpha: list[float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        combine(_experts(folders), torch.tensor(alpha))


def test_experts_of_different_models_are_refused() -> None:
    experts = {"a": _one_layer(6, 2, 5), "b": _one_layer(6, 2, 4)}
    with pytest.raises(ModelMismatchError, match=r"'q_proj': \[\(6, 4\), \(6, 5\)\]"):
        combine(experts, torch.ones(2))


@pytest.mark.parametrize("r", [1, 3, 5])
def test_truncated_is_the_best_of_its_rank(r: int) -> None:
    expert = _one_layer(12, 6, 9)
    dense = expert.layers["q_proj"].delta()
    u, values, vh = torch.linalg.svd(dense)
    best = (u[:, :r] * values[:r]) @ vh[:r]
    result = truncate(expert, r)
    torch.testing.assert_close(result.weights.layers["q_proj"].delta(), best, atol=1e-5, rtol=1e-5)
    assert result.relative_error == pytest.approx(float((dense - best).norm() / dense.norm()), rel=1e-4)
    assert result.weights.layers["q_proj"].r == r


def test_a_rank_that_is_enough_loses_nothing(folders: dict[str, Path]) -> None:
    expert = load_peft(folders["pattern"])
    result = truncate(expert, 5)
    assert result.relative_error == 0.0
    assert all(result.weights.layers[name].A is pair.A for name, pair in expert.layers.items())
    doubled = truncate(combine({"a": expert, "b": expert}, torch.ones(2)), 5)  # rank 10, true rank 5
    assert doubled.relative_error < 1e-5


def test_rank_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="rank 0 of expert 'one'"):
        truncate(_one_layer(3, 1, 2), 0)
