"""TIES and DARE against PEFT's own functions on the same dense tensors, and against plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor

from dense_for_tests import all_dense, assert_same
from mocae.errors import ConfigError
from mocae.merging import TaskVector, task_arithmetic
from mocae_rivals.consensus import dare, dare_ties, sparse_consensus, ties
from mocae_rivals.sparsify import drop_at_random, stream, trim_by_magnitude

Vectors = dict[str, TaskVector]
THREE = ("a", "b", "c")


@pytest.fixture
def three(vectors: Vectors) -> Vectors:
    return {name: vectors[name] for name in THREE}


def _dense(three: Vectors, module: str) -> list[Tensor]:
    return [vector.dense(module) for vector in three.values() if module in vector.modules]


@pytest.mark.parametrize("density", [0.2, 0.77])
@pytest.mark.parametrize("elect", ["total", "frequency"])
def test_ties_is_that_of_peft(three: Vectors, density: float, elect: Any) -> None:
    found = ties(three, weights=dict.fromkeys(THREE, 0.6), density=density, elect=elect)
    for module in found.modules:
        tensors = _dense(three, module)
        expected = merge_utils.ties(tensors, torch.full((len(tensors),), 0.6), density, elect)
        torch.testing.assert_close(found.dense(module), expected)


def _ties_by_loops(tensors: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    trimmed = []
    for tensor, weight in zip(tensors, weights, strict=True):
        order = sorted(range(tensor.numel()), key=lambda i: -abs(tensor.flatten()[i].item()))
        kept = set(order[: int(density * tensor.numel())])
        trimmed.append([weight * v if i in kept else 0.0 for i, v in enumerate(tensor.flatten().tolist())])
    merged = []
    for values in zip(*trimmed, strict=True):
        sign = 1.0 if sum(values) >= 0 else -1.0
        agreeing = [value for value in values if value * sign > 0]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(merged).view_as(tensors[0])


def test_ties_elects_signs_from_weighted_vectors(three: Vectors) -> None:
    weights = {"a": 0.5, "b": -2.0, "c": 1.0}
    found = ties(three, weights=weights, density=0.4)
    module = "model.layers.2.self_attn.v_proj"  # all three are there
    expected = _ties_by_loops(_dense(three, module), list(weights.values()), 0.4)
    torch.testing.assert_close(found.dense(module), expected)


def test_a_negated_expert_is_a_negative_weight(three: Vectors) -> None:
    negated = three | {"b": -three["b"]}
    assert_same(ties(negated, density=0.5), ties(three, weights={"a": 1, "b": -1, "c": 1}, density=0.5))


def test_the_pipeline_without_settings_is_task_arithmetic(three: Vectors) -> None:
    weights = {"a": 0.5, "b": -2.0, "c": 1.0}
    assert_same(sparse_consensus(three, weights=weights), task_arithmetic(three, weights=weights))
    assert_same(sparse_consensus(three, combine="mean"), (1 / 3) * task_arithmetic(three))


def test_everything_kept_is_no_drop(three: Vectors) -> None:
    assert_same(dare(three, density=1.0, seed=0), task_arithmetic(three))
    assert_same(dare_ties(three, density=1.0, seed=0), ties(three, density=1.0))


def test_one_expert_is_its_trimmed_self(vectors: Vectors) -> None:
    a = vectors["a"]
    for module, change in all_dense(ties({"a": a}, density=0.3), a).items():
        assert torch.equal(change, trim_by_magnitude(a.dense(module), 0.3))


def _dropped(name: str, vector: TaskVector, module: str, *, density: float, seed: int) -> Tensor:
    """Drop with PEFT's function, the global generator in the state that ours starts from."""
    with torch.random.fork_rng():
        torch.random.set_rng_state(stream(seed, name, module).get_state())
        return merge_utils.prune(vector.dense(module), density, method="random", rescale=True)


def test_dare_is_that_of_peft(three: Vectors) -> None:
    plain, elected = dare(three, density=0.3, seed=5), dare_ties(three, density=0.3, seed=5)
    for module in plain.modules:
        kept = [
            _dropped(name, vector, module, density=0.3, seed=5)
            for name, vector in three.items()
            if module in vector.modules
        ]
        torch.testing.assert_close(plain.dense(module), torch.stack(kept).sum(0))
        torch.testing.assert_close(elected.dense(module), _elected_mean(kept))


def _elected_mean(kept: list[Tensor]) -> Tensor:
    stacked = torch.stack(kept)
    return merge_utils.disjoint_merge(stacked, merge_utils.calculate_majority_sign_mask(stacked))


def test_dare_depends_on_its_seed_alone(three: Vectors) -> None:
    one, module = dare(three, density=0.5, seed=1), three["b"].modules[0]
    torch.rand(3)  # the global generator has no say
    again = dare(dict(reversed(three.items())), density=0.5, seed=1)
    torch.testing.assert_close(again.dense(module), one.dense(module))
    assert not torch.equal(dare(three, density=0.5, seed=2).dense(module), one.dense(module))
    state = torch.random.get_rng_state()
    one.dense(module)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dropping_keeps_the_expected_value() -> None:
    tensor = torch.linspace(-1, 1, 12).view(3, 4)
    draws = [drop_at_random(tensor, 0.25, generator=stream(seed, "x"), rescale=True) for seed in range(4000)]
    spread = tensor.abs() * math.sqrt(0.75 / 0.25 / 4000)  # standard deviation of the mean
    assert ((torch.stack(draws).mean(0) - tensor).abs() <= 5 * spread + 1e-7).all()
    unscaled = drop_at_random(tensor, 0.25, generator=stream(0, "x"), rescale=False)
    torch.testing.assert_close(unscaled, draws[0] / 4)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.34, 1.0])
def test_trimming_keeps_that_many_of_the_largest(density: float) -> None:
    tensor = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    found = trim_by_magnitude(tensor, density)
    torch.testing.assert_close(found, merge_utils.magnitude_based_pruning(tensor, density))
    assert int((found != 0).sum()) == int(density * 63)


def test_densities_that_are_no_fraction_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"density 1.2"):
        trim_by_magnitude(torch.ones(2, 2), 1.2)
    with pytest.raises(ConfigError, match=r"density -0.1"):
        drop_at_random(torch.ones(2, 2), -0.1, generator=stream(0), rescale=True)


def test_linears_outside_a_merge_are_refused(three: Vectors) -> None:
    with pytest.raises(ConfigError, match="unknown linear 'lm_head'"):
        ties({"b": three["b"]}, density=0.5).dense("lm_head")
