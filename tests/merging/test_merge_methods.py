"""The registry of merge methods, and those of exact sums."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field

from dense_for_tests import assert_same
from mocae.bank import LoraPair, combine
from mocae.errors import ConfigError, ModelMismatchError, PluginError
from mocae.merging import (
    MERGE_METHODS,
    Delta,
    MergeMethod,
    TaskVector,
    average,
    register_merge_method,
    task_arithmetic,
)

Vectors = dict[str, TaskVector]
OPTIONS: dict[str, dict[str, Any]] = {
    "average": {"weights": {"a": 1, "twin": 3}},
    "task-arithmetic": {},
}


@pytest.fixture
def pair(vectors: Vectors) -> Vectors:
    return {name: vectors[name] for name in ("a", "twin")}


def test_every_method_is_registered_described_and_runs(pair: Vectors) -> None:
    lines = MERGE_METHODS.describe()
    assert OPTIONS.keys() <= lines.keys()
    for name in OPTIONS:
        method = MERGE_METHODS.get(name)
        assert isinstance(method, MergeMethod)
        assert lines[name].startswith("Return ")
        assert method.reference.startswith(("arXiv:", "peft:"))
        delta = method(pair, **OPTIONS[name])
        assert isinstance(delta, Delta)
        assert set(delta.modules) == set(pair["a"].modules)
        for module in delta.modules:
            change = delta.dense(module)
            assert (tuple(change.shape), change.dtype) == (delta.shape(module), torch.float32)
            assert torch.equal(change, delta.dense(module))


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_one_expert_merges_to_itself(vectors: Vectors, name: str) -> None:
    delta = MERGE_METHODS.get(name)({"a": vectors["a"]})
    assert_same(delta, vectors["a"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("average", {"base_weight": -1.5}, "'average': option 'base_weight' is -1.5: Input should be greater than or"),
        ("average", {"base_weight": True}, "option 'base_weight' is True"),
        ("average", {"base_wait": 1.0}, "unknown option 'base_wait'.*Did you mean 'base_weight'"),
        ("average", {"weights": {"a": "1"}}, "option 'weights.a' is '1'"),
        ("task-arithmetic", {"weights": {"b": 1.0}}, "unknown expert 'b'"),
        ("task-arithmetic", {"weights": {"a": 0}}, "all weights of a, twin are 0"),
        ("task-arithmetic", {"weights": {"a": math.inf}}, "option 'weights.a' is inf"),
        ("average", {"weights": {"a": 1, "twin": -0.5}}, r"weights {'twin': -0.5} are negative"),
    ],
)
def test_options_that_do_not_fit_are_refused(pair: Vectors, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MERGE_METHODS.get(name)(pair, **options)


def test_experts_that_do_not_fit_are_refused(vectors: Vectors) -> None:
    with pytest.raises(ConfigError, match="'average' needs at least one expert"):
        average({})
    big = {"a": vectors["a"], "wide": task_arithmetic({"x": _ones("model.layers.0.self_attn.q_proj", 3, 5)})}
    with pytest.raises(ModelMismatchError, match="experts 'a' and 'wide'"):
        task_arithmetic(big)


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
    with pytest.raises(PluginError, match="'average' is already registered"):
        register_merge_method("average", reference="")(_untouched)
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
