"""Shares and preferences: what each word of steering comes to, for any prompt and any policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocae.calibration import AlignXRouter
from mocae.errors import ConfigError
from mocae.policies import (
    FixedPolicy,
    Policy,
    PromptBatch,
    Reading,
    RoutedPolicy,
    Steering,
    choose,
    shape_weights,
)
from mocae.systems.knn import KnnPolicy
from toy_router import AXES, make_toy


def steered(row: list[float], **options: Any) -> list[float]:
    words = {word: options.pop(word) for word in list(options) if word in Steering.model_fields}
    vectors = Steering.of(**words).vectors(AXES)
    found: list[float] = shape_weights(torch.tensor([row], dtype=torch.float32), vectors, **options)[0].tolist()
    return found


def test_shares_by_hand() -> None:
    assert steered([1, 0, 0], at_least={"honest": 0.5}) == [0.5, 0.0, 0.5]  # half of it, half the router's choice
    assert steered([0, 0, 1], at_least={"honest": 0.5}) == [0.0, 0.0, 1.0]  # it is the router's choice
    assert steered([0.6, 0.3, 0.1], at_least={"honest": 0.4}) == pytest.approx([0.4, 0.2, 0.4])  # in proportion
    assert steered([0.6, 0.3, 0.1], at_least={"honest": 0.1}) == pytest.approx([0.6, 0.3, 0.1])  # it has that
    assert steered([0.6, 0.3, 0.1], at_least={"helpful": 0.2, "honest": 0.8}) == pytest.approx([0.2, 0.0, 0.8])
    assert steered([0.6, 0.3, 0.1], at_most={"helpful": 0.2}) == pytest.approx([0.2, 0.6, 0.2])
    assert steered([0.6, 0.3, 0.1], at_most={"helpful": 0.4}, at_least={"honest": 0.5}) == pytest.approx(
        [1 / 3, 1 / 6, 0.5]
    )


def test_shares_where_one_expert_answers_alone() -> None:
    one = {"top_k": 1}
    assert steered([0.9, 0.08, 0.02], at_least={"honest": 0.5}, **one) == [0.5, 0.0, 0.5]
    assert steered([0.9, 0.08, 0.02], at_most={"helpful": 0.0}, **one) == [0.0, 1.0, 0.0]  # the next one, alone
    assert steered([0.9, 0.08, 0.02], at_most={"helpful": 0.5}, **one) == [0.5, 0.5, 0.0]
    most = {"helpful": 0.5, "harmless": 0.3}
    assert steered([0.9, 0.08, 0.02], at_most=most, **one) == pytest.approx([0.5, 0.3, 0.2])
    assert steered([0.9, 0.08, 0.02], at_most={"helpful": 0.0}, top_k=2) == pytest.approx([0.0, 0.8, 0.2])
    assert steered([0.9, 0.08, 0.02], at_most={"helpful": 0.0}, threshold=0.3) == [0.0, 1.0, 0.0]
    # Factors act first: what they make of the router's choice is what the shares are taken from.
    assert steered([0.9, 0.08, 0.02], steer={"harmless": 100.0}, at_least={"honest": 0.5}, **one) == [0.0, 0.5, 0.5]


def test_shares_of_policies_whose_weights_are_no_shares() -> None:
    ones, none = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    assert steered(ones, at_least={"honest": 0.5}) == pytest.approx([0.25, 0.25, 0.5])
    assert steered(none, at_least={"honest": 0.5}) == [0.0, 0.0, 0.5]  # the rest is the base model's
    assert steered([0.0, 0.0, 1.0], at_most={"honest": 0.5}) == [0.0, 0.0, 0.5]
    assert steered(ones, at_most=dict.fromkeys(AXES, 0.0)) == none
    assert steered(ones, at_most=dict.fromkeys(AXES, 0.2)) == pytest.approx([0.2] * 3)
    assert steered([1.0, -1.0, 0.5], at_least={"honest": 0.5}) == pytest.approx([0.5, 0.0, 0.5])
    assert steered([1.0, -1.0, 0.5], at_least={"honest": 0.0}, at_most={"helpful": 1.0}) == [1.0, -1.0, 0.5]


@st.composite
def bounds(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float]]:
    parts = [draw(st.sampled_from([0.0, 0.1, 0.25, 1 / 3])) for _ in AXES]
    most = [max(low, draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))) for low in parts]
    return dict(zip(AXES, parts, strict=True)), dict(zip(AXES, most, strict=True))


@settings(max_examples=300, deadline=None)
@given(
    row=st.lists(st.floats(1e-6, 1.0) | st.just(0.0), min_size=3, max_size=3),
    limits=bounds(),
    top_k=st.none() | st.integers(1, 3),
)
def test_what_bounds_keep(
    row: list[float], limits: tuple[dict[str, float], dict[str, float]], top_k: int | None
) -> None:
    low, high = limits
    total = sum(row) or 1.0
    row = [one / total for one in row]
    found = steered(row, at_least=low, at_most=high, top_k=top_k)
    for name, share in zip(AXES, found, strict=True):
        assert low[name] - 1e-6 <= share <= high[name] + 1e-6
    reachable = sum(high[name] if weight > 0 else low[name] for name, weight in zip(AXES, row, strict=True))
    bound = any(low.values()) or min(high.values()) < 1
    if bound:
        assert sum(found) == pytest.approx(min(1.0, max(reachable, sum(low.values()))), abs=1e-5)
    # Whoever is between the bounds keeps the proportion.
    free = [i for i, name in enumerate(AXES) if low[name] + 1e-4 < found[i] < high[name] - 1e-4]
    ratios = [found[i] / row[i] for i in free]
    assert ratios == pytest.approx(ratios[:1] * len(ratios), rel=1e-3)
    # A second time changes nothing.
    again = steered(found, at_least=low, at_most=high)
    if sum(found) == pytest.approx(1, abs=1e-6) and bound:
        assert again == pytest.approx(found, abs=1e-5)


def routers() -> list[Any]:
    toy = make_toy()
    made = []
    for calibration in ("chances", "temperature"):
        router = toy.fit(toy.set_of(10), l2=1e-2, calibration=calibration).router
        # Fitted, and as sure as a router gets: chances of several experts are 1 to the last bit.
        sure = replace(router, weight=200 * router.weight, bias=router.bias + 100)
        made += [pytest.param(each, top_k, id=f"{calibration}-{name}-{top_k}") for name, each in
                 (("fitted", router), ("sure", sure)) for top_k in (1, 2, None)]  # fmt: skip
    return made


@pytest.mark.parametrize(("router", "top_k"), routers())
def test_every_end_reaches_its_expert_for_any_prompt(router: AlignXRouter, top_k: int | None) -> None:
    pooled = make_toy().set_of(8, seed=5).pooled
    batch = PromptBatch([""] * len(pooled), pooled)
    policy = RoutedPolicy(router, top_k=top_k)
    plain = policy.route(batch)

    def routed(**words: Any) -> Tensor:
        return choose(policy, AXES, Steering.of(**words)).route(batch)

    for k, name in enumerate(AXES):
        alone = torch.eye(len(AXES))[k].expand(len(pooled), -1)
        assert torch.equal(routed(at_least={name: 1.0}), alone)
        assert (routed(at_most={name: 0.0})[:, k] == 0).all()
        torch.testing.assert_close(routed(at_most={name: 0.0}).sum(1), torch.ones(len(pooled)))
        torch.testing.assert_close(routed(prefer={name: 1e6}), alone)
        torch.testing.assert_close(routed(prefer={name: -1e6})[:, k], torch.zeros(len(pooled)))
        assert torch.equal(routed(prefer={name: 0.0}, at_least={name: 0.0}, at_most={name: 1.0}), plain)
        steps = torch.stack([routed(prefer={name: c})[:, k] for c in (-2.0, -1.0, 0.0, 1.0, 2.0)])
        assert (steps.diff(dim=0) >= -1e-6).all()  # never less of it


def test_a_preference_is_so_many_standard_deviations_of_the_logits() -> None:
    toy = make_toy()
    router = toy.fit(toy.set_of(10), l2=1e-2).router
    pooled = toy.set_of(8, seed=5).pooled
    known = torch.cat([toy.draw(20, 0)[0]])  # the training prompts
    spread = float(router.logits(known).var(0, unbiased=False).mean().sqrt())
    assert router.spread() == pytest.approx(spread, rel=1e-4)
    policy = RoutedPolicy(router, top_k=1)
    batch = PromptBatch([""] * len(pooled), pooled)
    logits = router.logits(pooled)
    logits[:, 2] += 1.5 * spread
    surer = choose(policy, AXES, Steering.of(prefer={"honest": 1.5})).route(batch)
    assert torch.equal(surer.argmax(1), logits.argmax(1))
    assert not torch.equal(surer.argmax(1), policy.route(batch).argmax(1))  # where factors of this size do nothing
    constant = replace(router, weight=torch.zeros_like(router.weight), lambdas=(0.0, 0.0))
    assert constant.spread() == 1


def test_what_changes_nothing_leaves_the_policy_and_its_confidence() -> None:
    toy = make_toy()
    policy = RoutedPolicy(toy.fit(toy.set_of(10), l2=1e-2).router)
    nothing = Steering.of(
        prefer={"honest": 0.0}, at_least={"honest": 0.0}, at_most={"helpful": 1.0}, steer={"honest": 1.0}
    )
    assert choose(policy, AXES, nothing) is policy
    assert choose(policy, AXES, None) is policy
    assert choose(policy, AXES, Steering.of(at_least={}, steer=None)) is policy
    batch = PromptBatch([""], toy.set_of(1).pooled[:1])
    assert choose(policy, AXES, Steering.of(at_least={"honest": 0.1})).sureness(batch) is None


@pytest.mark.parametrize("weights", [[1 / 3] * 3, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.2, -0.4, 1.2]])
def test_fixed_weights_take_shares_and_no_preference(weights: list[float]) -> None:
    policy = FixedPolicy(torch.tensor(weights))
    for k, name in enumerate(AXES):
        share = choose(policy, AXES, Steering.of(at_least={name: 1.0})).route(PromptBatch([""]))
        assert share.tolist() == [torch.eye(3)[k].tolist()]
        assert choose(policy, AXES, Steering.of(at_most={name: 0.0})).route(PromptBatch([""]))[0, k] == 0
    with pytest.raises(
        ConfigError, match=r"prefer: got \{'honest': 1.0\} for a system without a router's logits; ask fo"
    ):
        choose(policy, AXES, Steering.of(prefer={"honest": 1.0}))


def test_neighbours_give_what_bounds_leave_to_the_next_votes() -> None:
    latent = make_toy().latent
    points = torch.eye(5)[:4]
    accepted = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]]).bool()
    policy: Policy = KnnPolicy(latent, points, accepted, n_neighbours=4, reads=Reading(2, "mean"))
    batch = PromptBatch([""], latent.mean[None])
    assert policy.route(batch).tolist() == [[1, 0, 0]]
    for words, expected in (
        ({"at_most": {"helpful": 0.0}}, [0, 1, 0]),
        ({"at_most": {"helpful": 0.5}}, [0.5, 0.5, 0]),
        ({"at_least": {"honest": 0.5}}, [0.5, 0, 0.5]),
        ({"steer": {"helpful": 0.0}}, [0, 1, 0]),
    ):
        assert choose(policy, AXES, Steering.of(**words)).route(batch).tolist() == [expected]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"at_least": {"honest": 1.5}}, r"at_least.honest: got 1.5; it should be less than or equal to 1$"),
        ({"at_most": {"honest": -0.1}}, r"at_most.honest: got -0.1; it should be greater than or equal to 0$"),
        (
            {"at_least": {"honest": 0.6, "helpful": 0.6}},
            r"at_least: got \{.*; the shares sum to 1.2; accepted: at most 1",
        ),
        (
            {"at_least": {"honest": 0.6}, "at_most": {"honest": 0.5}},
            r"at_most: got \{'honest': 0.5\}; at most 0.5 of 'honest', and at least 0.6; accepted: at_least no",
        ),
        ({"prefer": {"honest": float("inf")}}, r"prefer.honest: got inf; it should be a finite number"),
        (
            {"weights": {}, "at_most": {"honest": 0.5}},
            r"weights replaces what the system chooses, at_most changes it: give",
        ),
        (
            {"at_leats": {"honest": 0.5}},
            r"at_leats: got .*unknown word of steering 'at_leats'.*Did you mean 'at_least'\?",
        ),
    ],
)
def test_what_no_weights_can_be_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Steering.of(**words)


def test_tenths_that_sum_to_1_are_accepted() -> None:
    names = [f"axis {i}" for i in range(10)]
    vectors = Steering.of(at_least=dict.fromkeys(names, 0.1)).vectors(names)
    torch.testing.assert_close(shape_weights(torch.eye(10)[:1], vectors), torch.full((1, 10), 0.1))
