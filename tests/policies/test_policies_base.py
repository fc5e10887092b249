from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocae.errors import ConfigError
from mocae.policies import (
    OraclePolicy,
    PromptBatch,
    Reading,
    RoutedPolicy,
    SteeringVectors,
    shape_weights,
    weights_vector,
)
from toy_router import AXES, make_toy


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    rows, experts = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    sizes = st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0]), min_size=experts, max_size=experts)
    found = torch.tensor([draw(sizes) for _ in range(rows)])
    return found / found.sum(1, keepdim=True).clamp_min(1e-6)


@settings(max_examples=200, deadline=None)
@given(alpha=weights(), top_k=st.none() | st.integers(1, 6), threshold=st.floats(0, 0.9), data=st.data())
def test_what_shaping_keeps(alpha: Tensor, top_k: int | None, threshold: float, data: st.DataObject) -> None:
    factors = st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0]), min_size=alpha.shape[1], max_size=alpha.shape[1])
    steer = data.draw(st.none() | factors.map(torch.tensor))
    shaped = shape_weights(alpha, SteeringVectors(steer=steer), top_k=top_k, threshold=threshold)
    steered = alpha if steer is None else alpha * steer
    alive = steered.sum(1) > 0
    torch.testing.assert_close(shaped.sum(1)[alive], alpha.sum(1)[alive])  # the sum
    assert (shaped[~alive] == 0).all()
    kept = shaped != 0
    assert (kept.sum(1) <= (top_k or alpha.shape[1])).all()
    assert (kept.sum(1)[alive] >= 1).all()  # never the largest
    assert not (kept & (steered == 0)).any()
    for row, before, keep in zip(shaped, steered, kept, strict=True):
        if keep.any():
            assert before[keep].min() >= before[~keep].max() if (~keep).any() else True  # the largest ones stay
            ratio = row[keep] / before[keep]
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))  # in proportion


@settings(max_examples=50, deadline=None)
@given(alpha=weights())
def test_nothing_asked_for_is_nothing_done(alpha: Tensor) -> None:
    assert torch.equal(shape_weights(alpha), alpha)
    assert torch.equal(shape_weights(alpha, SteeringVectors(steer=torch.ones(alpha.shape[1]))), alpha)
    assert torch.equal(shape_weights(alpha, top_k=alpha.shape[1]), alpha)


def shaped(row: list[float], **options: Any) -> list[float]:
    vectors = SteeringVectors(**{word: options.pop(word) for word in SteeringVectors._fields if word in options})
    found: list[float] = shape_weights(torch.tensor([row]), vectors, **options)[0].tolist()
    return found


def test_shaping_by_hand() -> None:
    assert shaped([0.5, 0.3, 0.2], top_k=2) == pytest.approx([0.625, 0.375, 0.0])
    assert shaped([0.5, 0.3, 0.2], threshold=0.25) == pytest.approx([0.625, 0.375, 0.0])
    assert shaped([0.5, 0.3, 0.2], threshold=0.9) == pytest.approx([1.0, 0.0, 0.0])
    assert shaped([0.5, 0.3, 0.2], steer=torch.tensor([0.0, 1.0, 1.0])) == pytest.approx([0.0, 0.6, 0.4])
    assert shaped([1.0, 1.0, 1.0], steer=torch.tensor([2.0, 1.0, 1.0])) == pytest.approx([1.5, 0.75, 0.75])
    assert shaped([0.5, 0.5], steer=torch.zeros(2)) == [0.0, 0.0]


def test_of_equal_weights_the_first_stay() -> None:
    assert shaped([0.25] * 4, top_k=1) == [1.0, 0.0, 0.0, 0.0]
    assert shaped([0.1, 0.3, 0.3, 0.3], top_k=2) == pytest.approx([0.0, 0.5, 0.5, 0.0])


def test_pruning_looks_at_steered_weights_after_normalising() -> None:
    third = torch.full((3,), 1 / 3)
    assert shaped([0.5, 0.3, 0.2], steer=third, threshold=0.25) == pytest.approx([0.625, 0.375, 0.0])
    assert shaped([0.5, 0.3, 0.2], steer=torch.tensor([0.1, 1.0, 1.0]), top_k=1) == [0.0, 1.0, 0.0]


def test_negative_weights_are_not_scaled() -> None:
    assert shaped([1.0, -0.9, 0.1], top_k=2) == pytest.approx([1.0, -0.9, 0.0])
    assert shaped([1.0, -0.9, 0.1], threshold=0.95) == pytest.approx([1.0, 0.0, 0.0])
    assert shaped([1.0, -1.0], steer=torch.tensor([2.0, 1.0])) == [2.0, -1.0]


def test_weights_by_name() -> None:
    assert weights_vector({"honest": -2.0, "helpful": 1.0}, AXES).tolist() == [1.0, 0.0, -2.0]
    with pytest.raises(ConfigError, match=r"unknown expert 'honset'. Known: 'harmless', 'helpful', 'honest'"):
        weights_vector({"honset": 1.0}, AXES)
    with pytest.raises(ConfigError, match=r"expert 'honest' is -inf; it must be finite"):
        weights_vector({"honest": float("-inf")}, AXES)


def test_an_unknown_way_of_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown pool 'max'. Known: 'last', 'mean', 'mean\+last'"):
        Reading(1, "max")


# --- policies by name -------------------------------------------------------------------------------------------


def test_the_oracle_takes_the_first_acceptable_expert() -> None:
    outcomes = {"a": [False, True, True], "b": [False, False, False], "c": [True, True, True]}
    policy = OraclePolicy(outcomes, len(AXES))
    rows = policy.route(PromptBatch(["c", "a", "b", "a"]))
    torch.testing.assert_close(rows, torch.tensor([[1.0, 0, 0], [0, 1, 0], [1 / 3] * 3, [0, 1, 0]]))
    with pytest.raises(ConfigError, match=r"to prompt 'd' were not judged"):
        policy.route(PromptBatch(["a", "d"]))


def test_routed_policies_prune_what_the_router_says() -> None:
    toy = make_toy()
    router = toy.fit(toy.set_of(10), l2=1e-2, temperature=2.0).router
    pooled = toy.set_of(5, seed=2).pooled
    batch = PromptBatch([""] * 15, pooled)
    policy = RoutedPolicy(router)
    assert policy.reads == Reading(2, "mean")
    assert torch.equal(policy.route(batch), router.probs(pooled))
    best = RoutedPolicy(router, top_k=1).route(batch)
    assert torch.equal(best.argmax(1), router.probs(pooled).argmax(1))
    torch.testing.assert_close(best.amax(1), torch.ones(15))
    pruned = RoutedPolicy(router, threshold=0.3).route(batch)
    torch.testing.assert_close(pruned, shape_weights(router.probs(pooled), threshold=0.3))
    # Steered before it is pruned: what top_k has dropped could not be steered back.
    toward = torch.tensor([0.0, 0.0, 1.0])
    steered = RoutedPolicy(router, top_k=1).route_steered(batch, SteeringVectors(steer=toward))
    torch.testing.assert_close(steered, toward.expand(15, 3))
    with pytest.raises(ConfigError, match="reads hidden states of the prompt and was given none"):
        policy.route(PromptBatch([""]))
    with pytest.raises(ConfigError, match="top_k is 0; give at least 1"):
        RoutedPolicy(router, top_k=0)
    with pytest.raises(ConfigError, match=r"threshold is 1.0;"):
        RoutedPolicy(router, threshold=1.0)
    assert RoutedPolicy(router, calibrated=False).calibrated is False
