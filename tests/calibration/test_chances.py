from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from mocae.calibration import AffineChances, AlignXRouter, CalibrationMethod, IsotonicChances, fit_chances
from mocae.calibration.chances import OWN_CHANCES, log_odds
from mocae.calibration.router import beliefs_of
from mocae.errors import DataError
from mocae.metrics import expected_calibration_error
from toy_router import Toy

METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
FITTED: tuple[CalibrationMethod, ...] = ("platt", "vector", "dirichlet", "isotonic")


def ceiling(n: int, best: float = 0.7, experts: int = 3) -> tuple[Tensor, Tensor]:
    """Weights that say 0.6 to 1 for a first choice that is right no oftener than `best`; others half the time."""
    generator = torch.Generator().manual_seed(experts)
    alpha = (4 * torch.randn(n, experts, generator=generator)).softmax(1)
    sure, top = alpha.max(1)
    chance = torch.full_like(alpha, 0.5).scatter(1, top[:, None], (best * sure)[:, None])
    return alpha, torch.rand(alpha.shape, generator=generator) < chance


def gap(method: CalibrationMethod, fitted: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> float:
    beliefs = beliefs_of(new[0], method, fit_chances(method, *fitted))
    right = new[1].gather(1, beliefs.alpha.argmax(1, keepdim=True))[:, 0]
    return expected_calibration_error(beliefs.confidence.clamp(0, 1).tolist(), right.tolist())


@pytest.mark.parametrize("method", FITTED)
def test_a_ceiling_that_weights_cannot_say_is_found(method: CalibrationMethod) -> None:
    alpha, acceptable = ceiling(3_000)
    fitted, new = (alpha[:1500], acceptable[:1500]), (alpha[1500:], acceptable[1500:])
    assert gap("temperature", fitted, new) > 0.2  # 0.6 to 1 said, at most 0.7 true
    assert gap(method, fitted, new) < 0.06  # a logistic curve is not quite this straight line


@pytest.mark.parametrize("method", METHODS)
def test_weights_sum_to_1_and_confidence_is_a_chance(method: CalibrationMethod) -> None:
    alpha, acceptable = ceiling(200)
    beliefs = beliefs_of(alpha, method, fit_chances(method, alpha, acceptable))
    torch.testing.assert_close(beliefs.alpha.sum(1), torch.ones(200))
    assert (beliefs.alpha >= 0).all()
    assert ((beliefs.confidence >= 0) & (beliefs.confidence <= 1)).all()
    if method not in OWN_CHANCES:  # they change what is said, not what is done
        assert torch.equal(beliefs.alpha, alpha)


def test_where_exactly_one_is_right_chances_are_weights() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])
    same = AffineChances(torch.eye(3), torch.zeros(3), torch.tensor(0.0))  # sigmoid of log-odds
    beliefs = beliefs_of(p, "vector", same)
    torch.testing.assert_close(beliefs.alpha, p)
    torch.testing.assert_close(beliefs.confidence, torch.tensor([0.7, 0.5]))


def test_several_right_or_none_is_said_by_chances_beyond_the_simplex() -> None:
    alpha, _ = ceiling(400)
    for right in (True, False):
        acceptable = torch.full(alpha.shape, right)
        for method in FITTED:
            chances = fit_chances(method, alpha, acceptable)
            assert chances is not None
            p = chances(alpha)
            assert ((p > 0.95) if right else (p < 0.05)).all(), method
            assert (p.sum(1) > 2.8).all() if right else (p.sum(1) < 0.2).all()


def test_three_of_four_right_by_hand() -> None:
    alpha = torch.tensor([[0.9, 0.1]] * 4)
    acceptable = torch.tensor([[True, False]] * 3 + [[False, False]])
    smoothed = (3 * (4 / 5) + 1 / 3) / 4  # Platt's targets
    chances = fit_chances("platt", alpha, acceptable)
    assert chances is not None
    assert float(chances(alpha)[0, 0]) == pytest.approx(smoothed, abs=0.01)
    isotonic = fit_chances("isotonic", alpha, acceptable)
    assert isotonic is not None
    torch.testing.assert_close(isotonic(alpha)[0], torch.tensor([0.75, 1 / 6]))  # never 0 after four prompts


def test_isotonic_is_scikit_learns() -> None:
    alpha, acceptable = ceiling(120)
    chances = fit_chances("isotonic", alpha, acceptable)
    assert isinstance(chances, IsotonicChances)
    new = ceiling(60, experts=3)[0].flip(1)
    for i in range(3):
        rival = IsotonicRegression(y_min=1 / 122, y_max=1 - 1 / 122, out_of_bounds="clip")
        rival.fit(alpha[:, i].double().numpy(), acceptable[:, i].double().numpy())
        expected = torch.from_numpy(rival.predict(new[:, i].double().numpy())).float()
        torch.testing.assert_close(chances(new)[:, i], expected, atol=1e-5, rtol=0)


def test_naming_the_experts_in_another_order_reorders_the_chances() -> None:
    alpha, acceptable = ceiling(300)
    order = [2, 0, 1]
    for method in FITTED:
        one = fit_chances(method, alpha, acceptable)
        other = fit_chances(method, alpha[:, order], acceptable[:, order])
        assert one is not None
        assert other is not None
        torch.testing.assert_close(other(alpha[:, order]), one(alpha)[:, order], atol=1e-3, rtol=0)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_weights_have_finite_odds_and_chances(p: float) -> None:
    assert math.isfinite(float(log_odds(torch.tensor(p))))
    alpha, acceptable = ceiling(100, experts=2)
    for method in FITTED:
        chances = fit_chances(method, alpha, acceptable)
        assert chances is not None
        assert chances(torch.tensor([[p, 1 - p]])).isfinite().all()


@pytest.mark.parametrize("method", FITTED)
def test_no_prompts_are_refused(method: CalibrationMethod) -> None:
    with pytest.raises(DataError, match=rf"routing.calibration: {method} needs held-out calibration prompts"):
        fit_chances(method, torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool))


# --- in the router ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_router_of_every_calibration_is_loaded_as_saved(toy: Toy, tmp_path: Path, method: Any) -> None:
    router = toy.fit(toy.set_of(15, right=0.8, wrong=0.3), l2=1e-2, calibration=method).router
    router.save(tmp_path)
    loaded = AlignXRouter.load(tmp_path)
    pooled = toy.set_of(9, seed=5).pooled
    assert loaded.calibration == method
    assert (loaded.chances is None) == (method in ("none", "temperature"))
    for one, other in zip(loaded.beliefs(pooled), router.beliefs(pooled), strict=True):
        assert torch.equal(one, other)


def test_none_is_the_softmax_as_it_is_and_needs_no_folds(toy: Toy) -> None:
    data = toy.set_of(10, right=0.8)
    fitted = toy.fit(data, l2=1e-2, calibration="none")
    assert fitted.held_out_beliefs is None
    assert fitted.router.temperature == 1.0
    torch.testing.assert_close(fitted.router.probs(data.pooled), fitted.router.logits(data.pooled).softmax(1))


def test_calibrations_differ_in_what_they_say_of_the_same_router(toy: Toy) -> None:
    data = toy.set_of(60, right=0.7, wrong=0.3)
    fits = {method: toy.fit(data, l2=1e-2, calibration=method) for method in METHODS}
    for method, fitted in fits.items():
        assert torch.equal(fitted.router.weight, fits["none"].router.weight)
        if method != "none":
            beliefs = fitted.held_out_beliefs
            assert beliefs is not None
            right = data.acceptable.gather(1, beliefs.alpha.argmax(1, keepdim=True))[:, 0]
            ece = expected_calibration_error(beliefs.confidence.clamp(0, 1).tolist(), right.tolist())
            assert ece < 0.15, method
    assert torch.equal(fits["platt"].router.probs(data.pooled), fits["temperature"].router.probs(data.pooled))
