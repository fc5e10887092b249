"""Every method of this package is found, described and runs; those that stay low rank do what their papers say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dense_for_tests import all_dense, assert_same
from mocae.errors import ConfigError, PluginError
from mocae.merging import MERGE_METHODS, Delta, MergeMethod, TaskVector, register_merge_method
from mocae_rivals.extrapolation import lox
from mocae_rivals.spherical import slerp

Vectors = dict[str, TaskVector]
OPTIONS: dict[str, dict[str, Any]] = {
    "dare": {"density": 0.5, "seed": 0},
    "dare-ties": {"density": 0.5, "seed": 0},
    "hma": {"blocks": [{"a": 1.0}, {"twin": 0.5}], "boundaries": [2]},
    "linear-peft": {},
    "lox": {"k": 2, "coefficient": 1.0},
    "slerp": {"t": 0.5},
    "sparse-consensus": {},
    "ties": {"density": 0.5},
}


@pytest.fixture
def pair(vectors: Vectors) -> Vectors:
    return {name: vectors[name] for name in ("a", "twin")}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_method_is_found_described_and_runs(pair: Vectors, name: str) -> None:
    assert MERGE_METHODS.describe()[name][0] != "f"  # "from module:attribute"
    method = MERGE_METHODS.get(name)
    assert isinstance(method, MergeMethod)
    assert method.reference.startswith(("arXiv:", "peft:"))
    delta = method(pair, **OPTIONS[name])
    assert isinstance(delta, Delta)
    assert set(delta.modules) == set(pair["a"].modules)
    for module in delta.modules:
        change = delta.dense(module)
        assert (tuple(change.shape), change.dtype) == (delta.shape(module), torch.float32)
        assert torch.equal(change, delta.dense(module))


@pytest.mark.parametrize("name", ["linear-peft", "sparse-consensus"])
def test_one_expert_merges_to_itself(vectors: Vectors, name: str) -> None:
    assert_same(MERGE_METHODS.get(name)({"a": vectors["a"]}), vectors["a"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ties", {}, "'ties': option 'density' is required"),
        ("ties", {"density": 1.5}, "'ties': option 'density' is 1.5: Input should be less than or equal to 1"),
        ("ties", {"density": True}, "option 'density' is True"),
        ("ties", {"density": 0.5, "elekt": "total"}, "unknown option 'elekt'.*Did you mean 'elect'"),
        ("ties", {"density": 0.5, "elect": "most"}, "option 'elect' is 'most'"),
        ("ties", {"density": 0.5, "weights": {"a": "1"}}, "option 'weights.a' is '1'"),
        ("sparse-consensus", {"sparsify": "random"}, "needs a seed"),
    ],
)
def test_options_that_do_not_fit_are_refused(pair: Vectors, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MERGE_METHODS.get(name)(pair, **options)


def test_what_does_not_fit_slerp_or_a_taken_name_is_refused(vectors: Vectors) -> None:
    with pytest.raises(ConfigError, match="exactly two experts, received 4: a, b, c, twin"):
        slerp(vectors, t=0.5)
    MERGE_METHODS.get("ties")
    with pytest.raises(PluginError, match="'ties' is already registered"):
        register_merge_method("ties", reference="")(slerp)


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
