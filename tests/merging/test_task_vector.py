"""Algebra of task vectors on low-rank factors equals that of the dense differences."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dense_for_tests import all_dense, assert_same
from mocae.bank import LoraPair, LoraWeights, load_peft, save_peft
from mocae.errors import ConfigError, ModelMismatchError
from mocae.merging import TaskVector, combination
from tiny import random_ids, tiny_llama, with_peft

Vectors = dict[str, TaskVector]


def _single(out: int, r: int, features: int, seed: int = 0, module: str = "q_proj") -> TaskVector:
    draw = torch.Generator().manual_seed(seed)
    pair = LoraPair(torch.randn(r, features, generator=draw), torch.randn(out, r, generator=draw), scaling=0.5)
    return TaskVector({module: (pair,)})


def _flat(vector: TaskVector, like: TaskVector) -> Tensor:
    return torch.cat([change.flatten() for change in all_dense(vector, like).values()]).double()


def test_one_times_an_expert_is_the_expert(vectors: Vectors, experts: dict[str, LoraWeights]) -> None:
    for name, expert in experts.items():
        for module, pair in (1 * vectors[name]).to_lora(name).layers.items():
            assert pair.A is expert.layers[module].A
            assert pair.B is expert.layers[module].B
            assert pair.scaling == expert.layers[module].scaling
            assert torch.equal((vectors[name] * 1.0).dense(module), expert.layers[module].delta())


def test_an_expert_and_its_negation_are_the_base_model(vectors: Vectors) -> None:
    a = vectors["a"]
    for zero in (a + (-a), a - a, 0 * a, (a + vectors["b"]) - vectors["b"] - a):
        assert zero.modules == a.modules
        assert zero.norm() == 0
        for module in a.modules:
            assert zero.rank(module) == 0
            assert not zero.dense(module).any()
            assert zero.shape(module) == a.shape(module)
    copied = TaskVector(
        {m: tuple(LoraPair(p.A.clone(), p.B.clone(), p.scaling) for p in t) for m, t in a.layers.items()}
    )
    assert (a - copied).norm() < 1e-7 * a.norm()


def test_addition_is_associative_and_commutative(vectors: Vectors) -> None:
    a, b, c = vectors["a"], vectors["b"], vectors["c"]
    assert_same((a + b) + c, a + (b + c))
    assert_same(a + c, c + a)
    assert_same((a + b) * 2.5, 2.5 * a + 2.5 * b)
    assert_same(a - b, a + -1 * b)


def test_sums_are_those_of_the_dense_differences_for_any_ranks_and_targets(vectors: Vectors) -> None:
    a, b, c = vectors["a"], vectors["b"], vectors["c"]
    dense = [all_dense(vector, a) for vector in (a, b, c)]
    mixed = 0.3 * a - 1.7 * b + 2 * c
    assert_same(mixed, {m: 0.3 * dense[0][m] - 1.7 * dense[1][m] + 2 * dense[2][m] for m in a.modules})
    assert mixed.rank("model.layers.2.self_attn.v_proj") == 4 + 3 + 2


def test_terms_of_the_same_tensors_are_joined(vectors: Vectors) -> None:
    a, b = vectors["a"], vectors["b"]
    module = b.modules[0]
    assert (a + b + a - b).rank(module) == a.rank(module)
    assert torch.equal((a + b + a - b).dense(module), 2 * a.dense(module))


@pytest.mark.parametrize(("one", "two"), [("a", "twin"), ("a", "b"), ("b", "c"), ("c", "c")])
def test_products_are_those_of_the_dense_differences(vectors: Vectors, one: str, two: str) -> None:
    x, y, like = vectors[one], vectors[two], vectors["a"]
    dense_x, dense_y = _flat(x, like), _flat(y, like)
    size = float(dense_x.norm() * dense_y.norm())
    assert x.norm() == pytest.approx(float(dense_x.norm()), rel=1e-6)
    assert x.inner(y) == pytest.approx(float(dense_x @ dense_y), abs=1e-6 * size)
    assert x.inner(y) == pytest.approx(y.inner(x), abs=1e-12 * size)
    assert x.cosine(y) == pytest.approx(float(dense_x @ dense_y) / size, abs=1e-6)
    assert (x + y).norm() ** 2 == pytest.approx(x.norm() ** 2 + 2 * x.inner(y) + y.norm() ** 2)
    assert x.cosine(-2 * x) == -1.0


def test_cosine_by_layer_is_that_of_the_dense_layers(vectors: Vectors) -> None:
    a, c = vectors["a"], vectors["c"]
    found = (a + c).cosine_by_layer(c)
    assert list(found) == [2, 3]  # c is 0 in layers 0 and 1
    for layer, cosine in found.items():
        modules = [m for m in a.modules if f".{layer}." in m]
        x, y = (torch.cat([all_dense(v, a)[m].flatten() for m in modules]) for v in (a + c, c))
        assert cosine == pytest.approx(float(torch.cosine_similarity(x, y, dim=0)), abs=1e-5)


def test_layers_without_a_common_linear_are_orthogonal_and_others_left_out() -> None:
    one, two = (_single(6, 2, 5, module=f"layers.1.{name}_proj") for name in ("q", "k"))
    assert one.cosine_by_layer(two) == {1: 0.0}
    assert _single(6, 2, 5, module="lm_head").cosine_by_layer(_single(6, 2, 5, module="lm_head")) == {}


@pytest.mark.parametrize("r", [1, 3, 9])
def test_truncated_is_the_best_of_its_rank(r: int) -> None:
    vector = _single(12, 4, 9, seed=1) - 0.3 * _single(12, 5, 9, seed=2)
    dense = vector.dense("q_proj")
    u, values, vh = torch.linalg.svd(dense, full_matrices=False)
    closest, error = vector.truncate(r)
    torch.testing.assert_close(closest.dense("q_proj"), (u[:, :r] * values[:r]) @ vh[:r], atol=1e-5, rtol=1e-5)
    assert closest.rank("q_proj") == r
    assert error == pytest.approx(float(values[r:].norm() / values.norm()), abs=1e-6)


def test_zero_is_truncated_to_zero(vectors: Vectors) -> None:
    a, c = vectors["a"], vectors["c"]
    closest, error = (a - a).truncate(2)
    assert (closest.norm(), error) == (0.0, 0.0)
    partly = (a - a + c).truncate(1).vector
    assert partly.modules == a.modules
    assert max(partly.rank(module) for module in partly.modules) == 1
    with pytest.raises(ConfigError, match="rank 0"):
        (a - a).truncate(0)


def test_a_vector_is_an_expert_again_even_in_peft(vectors: Vectors, tmp_path: Path) -> None:
    mixed = 0.5 * vectors["a"] - vectors["b"] + vectors["c"] - vectors["c"]
    for name, vector in {"mixed": mixed, "negated": -vectors["a"]}.items():
        expert = vector.to_lora(name)
        assert (expert.name, expert.base_model) == (name, vectors["a"].base_model)
        folder = save_peft(expert, tmp_path / name)
        assert_same(TaskVector.from_lora(load_peft(folder)), vector)
        model, ids = tiny_llama(), random_ids(1, 5)
        with torch.no_grad():
            by_peft = with_peft(model, folder)(ids).logits
            for module, change in all_dense(vector, vector).items():
                model.get_submodule(module).weight += change
            torch.testing.assert_close(model(ids).logits, by_peft, atol=1e-4, rtol=1e-4)
    assert "alpha_pattern" in (tmp_path / "negated" / "adapter_config.json").read_text()
    assert (-vectors["a"]).to_lora("x").lora_alpha == -8  # one number for all, no pattern


def test_linears_that_became_zero_are_not_in_the_expert(vectors: Vectors) -> None:
    a, c = vectors["a"], vectors["c"]
    assert set((a - a + c).to_lora("c").layers) == set(c.modules)
    with pytest.raises(ConfigError, match="'nothing' is 0, which is the base model"):
        (a - a).to_lora("nothing")


def test_every_linear_can_have_its_own_factor(vectors: Vectors) -> None:
    a = vectors["a"]
    scaled = a.scaled(lambda module: 2.0 if "q_proj" in module else 0.0)
    for module in a.modules:
        expected = 2 * a.dense(module) if "q_proj" in module else torch.zeros(a.shape(module))
        assert torch.equal(scaled.dense(module), expected)


def test_bases_that_differ_are_not_claimed(vectors: Vectors) -> None:
    a = vectors["a"]
    other = TaskVector(a.layers, "another/base")
    assert (a + vectors["b"]).base_model == a.base_model
    assert (a + other).base_model is None


def test_half_precision_factors_are_multiplied_in_fp32() -> None:
    vector = _single(12, 4, 9)
    half = TaskVector({"q_proj": tuple(LoraPair(p.A.bfloat16(), p.B.bfloat16(), 0.5) for p in vector.layers["q_proj"])})
    assert (half + half * 0.5).dense("q_proj").dtype == torch.float32
    (pair,) = half.layers["q_proj"]
    torch.testing.assert_close(half.dense("q_proj"), 0.5 * pair.B.float() @ pair.A.float())
    assert half.to_lora("x").layers["q_proj"].A.dtype == torch.bfloat16


def test_what_does_not_fit_is_refused(vectors: Vectors) -> None:
    small, large = _single(6, 2, 5), _single(6, 2, 4)
    for operation in (lambda: small + large, lambda: small.inner(large), lambda: small.cosine_by_layer(large)):
        with pytest.raises(ModelMismatchError, match=r"'q_proj': \(6, 5\) and \(6, 4\)"):
            operation()
    with pytest.raises(ConfigError, match="multiplied by nan"):
        small * math.nan
    with pytest.raises(ConfigError, match=r"norm 0, so its cosine"):
        small.cosine(small - small)
    with pytest.raises(ConfigError, match="no task vectors"):
        combination([])
    with pytest.raises(ConfigError, match=r"unknown linear 'q_pro'.*Did you mean 'q_proj'"):
        small.dense("q_pro")
    assert repr(small) == "TaskVector(1 linears, ranks 2 to 2)"
