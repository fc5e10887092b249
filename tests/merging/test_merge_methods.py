"""The registry of merge methods, and those that stay low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field

from dense_for_tests import all_dense, assert_same
from mocae.bank import LoraPair, combine
from mocae.errors import ConfigError, ModelMismatchError, PluginError
from mocae.merging import (
    MERGE_METHODS,
    Delta,
    MergeMethod,
    TaskVector,
    average,
    lox,
    register_merge_method,
    slerp,
    task_arithmetic,
)

Vectors = dict[str, TaskVector]
OPTIONS: dict[str, dict[str, Any]] = {
    "average": {},
    "dare": {"density": 0.5, "seed": 0},
    "dare-ties": {"density": 0.5, "seed": 0},
    "hma": {"blocks": [{"a": 1.0}, {"twin": 0.5}], "boundaries": [2]},
    "linear-peft": {},
    "lox": {"k": 2, "coefficient": 1.0},
    "slerp": {"t": 0.5},
    "sparse-consensus": {},
    "task-arithmetic": {},
    "ties": {"density": 0.5},
}


@pytest.fixture
def pair(vectors: Vectors) -> Vectors:
    return {name: vectors[name] for name in ("a", "twin")}


def test_every_method_is_registered_described_and_runs(pair: Vectors) -> None:
    assert MERGE_METHODS.describe().keys() == OPTIONS.keys()
    for name, told in MERGE_METHODS.describe().items():
        method = MERGE_METHODS.get(name)
        assert isinstance(method, MergeMethod)
        assert told.startswith("Return ")
        assert method.reference.startswith(("arXiv:", "peft:"))
        delta = method(pair, **OPTIONS[name])
        assert isinstance(delta, Delta)
        assert set(delta.modules) == set(pair["a"].modules)
        for module in delta.modules:
            change = delta.dense(module)
            assert (tuple(change.shape), change.dtype) == (delta.shape(module), torch.float32)
            assert torch.equal(change, delta.dense(module))


@pytest.mark.parametrize("name", sorted(set(OPTIONS) - {"dare", "dare-ties", "ties", "hma", "slerp", "lox"}))
def test_one_expert_merges_to_itself(vectors: Vectors, name: str) -> None:
    delta = MERGE_METHODS.get(name)({"a": vectors["a"]})
    assert_same(delta, vectors["a"])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ties", {}, "'ties': option 'density' is required"),
        ("ties", {"density": 1.5}, "'ties': option 'density' is 1.5: Input should be less than or equal to 1"),
        ("ties", {"density": True}, "option 'density' is True"),
        ("ties", {"density": 0.5, "elekt": "total"}, "unknown option 'elekt'.*Did you mean 'elect'"),
        ("ties", {"density": 0.5, "elect": "most"}, "option 'elect' is 'most'"),
        ("ties", {"density": 0.5, "weights": {"a": "1"}}, "option 'weights.a' is '1'"),
        ("task-arithmetic", {"weights": {"b": 1.0}}, "unknown expert 'b'"),
        ("task-arithmetic", {"weights": {"a": 0}}, "all weights of a, twin are 0"),
        ("task-arithmetic", {"weights": {"a": math.inf}}, "option 'weights.a' is inf"),
        ("average", {"weights": {"a": 1, "twin": -0.5}}, r"weights {'twin': -0.5} are negative"),
        ("sparse-consensus", {"sparsify": "random"}, "needs a seed"),
    ],
)
def test_options_that_do_not_fit_are_refused(pair: Vectors, name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        MERGE_METHODS.get(name)(pair, **options)


def test_experts_that_do_not_fit_are_refused(vectors: Vectors) -> None:
    with pytest.raises(ConfigError, match="'average' needs at least one expert"):
        average({})
    big = {"a": vectors["a"], "wide": task_arithmetic({"x": _ones("model.layers.0.self_attn.q_proj", 3, 5)})}
    with pytest.raises(ModelMismatchError, match="experts 'a' and 'wide'"):
        task_arithmetic(big)
    with pytest.raises(ConfigError, match="exactly two experts, received 4: a, b, c, twin"):
        slerp(vectors, t=0.5)


def _ones(module: str, out: int, features: int) -> TaskVector:
    return TaskVector({module: (LoraPair(torch.ones(1, features), torch.ones(out, 1), scaling=1.0),)})


def test_a_method_is_a_typed_function(monkeypatch: pytest.MonkeyPatch, pair: Vectors) -> None:
    monkeypatch.setattr(MERGE_METHODS, "_loaded", dict(MERGE_METHODS._loaded))

    @register_merge_method("mine/first", reference="ours")
    def first(vectors: Mapping[str, TaskVector], *, share: Annotated[float, Field(gt=0)] = 1.0) -> Delta:
        """Return a share of the first expert."""
        return share * next(iter(vectors.values()))

    assert_same(MERGE_METHODS.get("mine/first")(pair, share=2), 2 * pair["a"])
    assert first.parameters(share=0.5).model_dump() == {"share": 0.5}
    assert "mine/first" in MERGE_METHODS
    with pytest.raises(ConfigError, match="option 'share' is -1"):
        first(pair, share=-1)
    with pytest.raises(PluginError, match="'ties' is already registered"):
        register_merge_method("ties", reference="")(_untouched)
    with pytest.raises(PluginError, match="'alpha' must be keyword-only"):
        register_merge_method("mine/loose", reference="")(_loose_function)


def _untouched(vectors: Mapping[str, TaskVector]) -> Delta: ...


def _loose_function(vectors: Mapping[str, TaskVector], alpha: float) -> Delta: ...


def test_task_arithmetic_is_the_sum_the_bank_makes(vectors: Vectors, experts: dict[str, Any]) -> None:
    weights = {"a": 0.7, "b": -0.4, "c": 1.3}
    merged = task_arithmetic(vectors, weights=weights)
    combined = combine({name: experts[name] for name in weights}, torch.tensor(list(weights.values())))
    assert_same(merged, TaskVector.from_lora(combined))
    assert_same(task_arithmetic(vectors), vectors["a"] + vectors["b"] + vectors["c"] + vectors["twin"])


def test_average_is_the_mean_of_the_models(vectors: Vectors) -> None:
    a, c = vectors["a"], vectors["c"]
    assert_same(average({"a": a, "c": c}), 0.5 * a + 0.5 * c)
    assert_same(average({"a": a, "c": c}, weights={"a": 3, "c": 1}), 0.75 * a + 0.25 * c)
    assert_same(average({"a": a}, base_weight=3), 0.25 * a)


def _sphere(one: torch.Tensor, two: torch.Tensor, t: float) -> torch.Tensor:
    theta = torch.acos(torch.cosine_similarity(one.flatten(), two.flatten(), dim=0))
    return (torch.sin((1 - t) * theta) * one + torch.sin(t * theta) * two) / torch.sin(theta)


def test_slerp_follows_the_arc(pair: Vectors) -> None:
    a, b = pair.values()
    dense_a, dense_b = all_dense(a, a), all_dense(b, a)
    assert_same(slerp(pair, t=0.3), {m: _sphere(dense_a[m], dense_b[m], 0.3) for m in a.modules})
    assert_same(slerp(pair, t=0.0), a)
    assert_same(slerp(pair, t=1.0), b)
    whole = torch.cat([change.flatten() for change in dense_a.values()])
    other = torch.cat([change.flatten() for change in dense_b.values()])
    found = torch.cat([change.flatten() for change in all_dense(slerp(pair, t=0.3, angle="model"), a).values()])
    torch.testing.assert_close(found, _sphere(whole, other, 0.3), atol=1e-6, rtol=1e-5)
    equal = {"a": a, "long": a * (b.norm() / a.norm())}
    assert_same(slerp(equal, t=0.25), 0.75 * equal["a"] + 0.25 * equal["long"])


def test_slerp_is_a_straight_line_where_one_expert_is_zero(vectors: Vectors) -> None:
    a, c = vectors["a"], vectors["c"]
    found = slerp({"a": a, "c": c}, t=0.25)
    lonely = [module for module in a.modules if module not in c.modules]
    assert lonely
    for module in lonely:
        torch.testing.assert_close(found.dense(module), 0.75 * a.dense(module))


@pytest.mark.parametrize(("k", "coefficient"), [(1, 1.25), (3, -0.5), (50, 2.0)])
def test_lox_extrapolates_the_leading_directions(vectors: Vectors, k: int, coefficient: float) -> None:
    chosen = {name: vectors[name] for name in ("a", "c")}
    update = all_dense(chosen["a"] - 0.5 * chosen["c"], chosen["a"])

    def extrapolated(change: torch.Tensor) -> torch.Tensor:
        u = torch.linalg.svd(change)[0][:, :k]
        return change + coefficient * u @ u.T @ change

    found = lox(chosen, weights={"a": 1.0, "c": -0.5}, k=k, coefficient=coefficient)
    for module, change in update.items():
        torch.testing.assert_close(found.dense(module), extrapolated(change), atol=1e-5, rtol=1e-4)


def test_no_extrapolation_is_the_expert(vectors: Vectors) -> None:
    assert_same(lox({"a": vectors["a"]}, k=2, coefficient=0.0), vectors["a"])
