from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from mocae.calibration import AlignXRouter, CalibrationSet, FittedRouter, RouterSettings, fit_router
from mocae.calibration.outcome import _folds, _loss
from mocae.errors import DataError
from mocae.metrics import expected_calibration_error
from toy_router import AXES, CENTRES, Toy

SOFTMAX: dict[str, Any] = {"calibration": "temperature"}
PLAIN: dict[str, Any] = {**SOFTMAX, "l2": 1e-2, "temperature": 1.0, "lambdas": (0.0, 0.0)}


def same(one: AlignXRouter, other: AlignXRouter) -> bool:
    pairs = zip((one.weight, one.bias), (other.weight, other.bias), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one.temperature == other.temperature


def confidence(fitted: FittedRouter, data: CalibrationSet) -> float:
    return float(fitted.router.probs(data.pooled).amax(1).mean())


def test_the_right_expert_is_chosen_for_new_prompts(toy: Toy) -> None:
    fitted = toy.fit(toy.set_of(30))
    new = toy.set_of(100, seed=2)
    probs = fitted.router.probs(new.pooled)
    torch.testing.assert_close(probs.sum(1), torch.ones(300))
    nearest = torch.cdist(new.pooled, CENTRES).argmin(1)
    right, best = ((choice == new.labels).double().mean() for choice in (probs.argmax(1), nearest))
    assert 0.8 < best < 0.99  # the clusters overlap, so this is the most that can be had
    assert right > best - 0.05
    assert min(fitted.held_out_loss.values()) == fitted.held_out_loss[fitted.l2]
    assert len(fitted.held_out_loss) == 11
    assert (fitted.router.layer, fitted.router.pool, fitted.router.axes) == (2, "mean", AXES)


def test_confidence_is_the_chance_that_the_answer_is_acceptable(toy: Toy) -> None:
    fitted = toy.fit(toy.set_of(150), l2=3e-3, **SOFTMAX)
    new = toy.set_of(700, seed=2)
    sure, chosen = fitted.router.probs(new.pooled).max(1)
    right = new.acceptable.gather(1, chosen[:, None])[:, 0]
    assert expected_calibration_error(sure.tolist(), right.tolist()) < 0.04
    unsure = replace(fitted.router, temperature=3 * fitted.router.temperature).probs(new.pooled).amax(1)
    assert expected_calibration_error(unsure.tolist(), right.tolist()) > 0.15


def test_with_one_acceptable_expert_it_is_logistic_regression(toy: Toy) -> None:
    data = toy.set_of(40)
    router = toy.fit(data, gating_weight=0.0, **PLAIN).router
    phi = router.inputs(data.pooled).phi.double().numpy()
    rival = LogisticRegression(C=1 / (2 * 1e-2 * len(phi)), tol=1e-10, max_iter=1000).fit(phi, data.labels.numpy())
    torch.testing.assert_close(
        router.probs(data.pooled).double(), torch.from_numpy(rival.predict_proba(phi)), atol=1e-3, rtol=0
    )
    labels_alone = toy.fit(data, gating_weight=1.0, outcome_weight=0.0, **PLAIN).router
    assert same(router, labels_alone)


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, 0.0], [5.0, 1.0, 2.0]])
    acceptable = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    labels = torch.tensor([2, 0, 0])
    gating = math.log(3) + math.log(2) + float(torch.tensor([5.0, 1.0, 2.0]).logsumexp(0)) - 5
    outcome = -math.log(2 / 3) - math.log(2 / 4)  # the third prompt says nothing
    found = _loss(logits, acceptable, labels, RouterSettings(outcome_weight=2.0, gating_weight=0.5, **SOFTMAX))
    assert float(found) == pytest.approx((2.0 * outcome + 0.5 * gating) / 3)
    none = _loss(logits, torch.zeros_like(acceptable), labels, RouterSettings(gating_weight=0.5, **SOFTMAX))
    assert float(none) == pytest.approx(0.5 * gating / 3)


def test_prompts_without_an_acceptable_answer_lower_the_confidence(toy: Toy) -> None:
    data = toy.set_of(40)
    hopeless = data.acceptable.clone()
    hopeless[::3] = False
    before, after = (toy.fit(d, l2=1e-2, **SOFTMAX) for d in (data, replace(data, acceptable=hopeless)))
    assert confidence(after, data) < confidence(before, data) - 0.1
    assert after.router.temperature > before.router.temperature


def test_naming_the_axes_in_another_order_reorders_the_weights(toy: Toy) -> None:
    order = [2, 0, 1]
    data = toy.set_of(30, right=0.9, wrong=0.2)
    router = toy.fit(data, l2=1e-2, **SOFTMAX).router
    other = fit_router(
        replace(data, acceptable=data.acceptable[:, order], labels=torch.tensor([order.index(i) for i in data.labels])),
        axes=[AXES[i] for i in order],
        latent=toy.latent._replace(subspaces=toy.latent.subspaces[order]),
        clouds=[toy.clouds[i] for i in order],
        settings=RouterSettings(l2=1e-2, **SOFTMAX),
        layer=2,
        pool="mean",
    ).router
    assert other.axes == ("honest", "helpful", "harmless")
    assert other.temperature == pytest.approx(router.temperature, rel=0.02)
    new = toy.set_of(20, seed=3).pooled
    torch.testing.assert_close(other.logits(new), router.logits(new)[:, order], atol=2e-3, rtol=0)


def test_the_same_prompts_give_the_same_router(toy: Toy) -> None:
    data = toy.set_of(15, right=0.9, wrong=0.2)
    torch.manual_seed(1)
    one = toy.fit(data, l2=1e-2)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    other = toy.fit(data, l2=1e-2)
    assert same(one.router, other.router)
    assert one.held_out_loss == other.held_out_loss
    assert torch.equal(torch.get_rng_state(), state)  # and draws nothing of its own


def test_calibrators_enter_with_their_weights(toy: Toy) -> None:
    data = toy.set_of(20)
    router = toy.fit(data, l2=1e-2, temperature=0.7, lambdas=(0.6, 0.4), **SOFTMAX).router
    assert (router.temperature, router.lambdas) == (0.7, (0.6, 0.4))
    x = router.inputs(data.pooled)
    expected = x.phi @ router.weight.T + router.bias + 0.6 * x.fractal + 0.4 * x.natural
    torch.testing.assert_close(router.logits(data.pooled), expected)
    torch.testing.assert_close(router.probs(data.pooled), (expected / 0.7).softmax(1))
    for values in (x.phi, x.fractal, x.natural):
        varies = values.std(0) > 0
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(
            values.std(0, unbiased=False)[varies], torch.ones(int(varies.sum())), atol=1e-4, rtol=0
        )


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.sampled_from(["", "a", "b", "c", "d", "e", "f", "g"]), min_size=1, max_size=40))
def test_a_group_is_never_split_over_folds(groups: list[str]) -> None:
    folds = _folds(groups).tolist()
    assert len(folds) == len(groups)
    for name in set(groups) - {""}:
        assert len({fold for fold, group in zip(folds, groups, strict=True) if group == name}) == 1
    members = {group or str(i): fold for i, (fold, group) in enumerate(zip(folds, groups, strict=True))}
    sizes = Counter(members.values())
    assert len(sizes) == min(5, len(members))
    assert max(sizes.values()) - min(sizes.values()) <= 1  # in groups, not rows
    assert folds == _folds(groups).tolist()


def test_what_cannot_be_fitted_is_refused(toy: Toy) -> None:
    data = toy.set_of(4)
    with pytest.raises(DataError, match=r"needs calibration prompts, got none; give axes.\*.calibration"):
        toy.fit(CalibrationSet(data.pooled[:0], data.acceptable[:0], data.labels[:0], []))
    hopeless = replace(data, acceptable=torch.zeros_like(data.acceptable))
    with pytest.raises(DataError, match=r"any of the 12 calibration prompts acceptably.*routing.outcome.weight to 0"):
        toy.fit(hopeless)
    assert toy.fit(hopeless, outcome_weight=0.0, gating_weight=1.0, **PLAIN).held_out_loss == {}
    one_group = replace(data, groups=["fact"] * 12)
    with pytest.raises(DataError, match=r"at least two groups, got one \(12 prompts\).*routing.temperature"):
        toy.fit(one_group)
    assert toy.fit(one_group, l2=0.1, temperature=2.0, **SOFTMAX).router.temperature == 2.0
