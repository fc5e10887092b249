"""Outcome calibration: fit the router on which expert's answer a judge accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocae.calibration.chances import CalibrationMethod, fit_chances
from mocae.calibration.fractal import FractalScore, fit_fractal
from mocae.calibration.latent import LatentSpace
from mocae.calibration.natural import fit_natural
from mocae.calibration.router import AlignXRouter, Beliefs, RouterInputs, Standardiser, beliefs_of
from mocae.calibration.temperature import fit_temperature
from mocae.errors import DataError

__all__ = ["CalibrationSet", "FittedRouter", "RouterSettings", "fit_router"]

_L2_GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How a router is fitted; None for `l2` or `temperature` means fitted on held-out folds.

    Attributes:
        outcome_weight: weight of the outcome loss.
        gating_weight: weight of the gating loss, cross-entropy against the axis a prompt came from.
        l2: ridge penalty on W.
        temperature: softmax temperature, for the calibrations "temperature" and "platt"; the others have none.
        calibration: how logits become weights and chances, see `AlignXRouter`.
        lambdas: (lambda1, lambda2) of the fractal and natural terms.
        fit_lambdas: learn both, starting from `lambdas` and held near them by `l2`.
        projections: whether phi holds the projections on the axis subspaces.
        fractal_score: which reading of the local dimension.
        epsilon: smallest radius of the fractal calibrator.
        shrinkage: of the natural calibrator's covariance.
    """

    outcome_weight: float = 1.0
    gating_weight: float = 0.01
    l2: float | None = None
    temperature: float | None = None
    calibration: CalibrationMethod = "temperature"
    lambdas: tuple[float, float] = (0.6, 0.4)
    fit_lambdas: bool = False
    projections: bool = True
    fractal_score: FractalScore = "log_mass"
    epsilon: float = 0.05
    shrinkage: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """Prompts with the verdicts on every expert's answer.

    Attributes:
        pooled: (N, P), pooled hidden states.
        acceptable: (N, K), whether expert k's answer was acceptable.
        labels: (N,), index of the axis the prompt came from.
        groups: N labels; prompts of one group stay in one fold.
    """

    pooled: Float[Tensor, "N P"]
    acceptable: Bool[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    groups: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class FittedRouter:
    """A router with what its fitting found on held-out folds.

    Attributes:
        router: fitted on all prompts.
        l2: the ridge penalty chosen.
        held_out_loss: log loss of each penalty tried.
        held_out_beliefs: weights and confidence of every calibration prompt, from a router and a calibration fitted
            on the other folds; None where nothing was held out.
    """

    router: AlignXRouter
    l2: float
    held_out_loss: dict[float, float]
    held_out_beliefs: Beliefs | None = None


def fit_router(
    data: CalibrationSet,
    *,
    axes: Sequence[str],
    latent: LatentSpace,
    clouds: Sequence[Float[Tensor, "_ k"]],
    settings: RouterSettings,
    layer: int,
    pool: str,
) -> FittedRouter:
    """Return a router fitted on outcomes.

    Minimises mean_x [ -w_o log sum_i alpha_i(x) R_i(x) + w_g CE(alpha(x), axis of x) ] + l2 |W|^2 with alpha the
    softmax of W phi + b + lambda1 F + lambda2 N at T = 1, then fits the calibration on held-out logits. Prompts no
    expert answered acceptably say nothing about which to choose and enter the calibration alone, where they lower the
    confidence. The same inputs give the same router.

    Args:
        data: calibration prompts; never the training or test prompts.
        axes: names of the experts.
        latent: the latent space.
        clouds: latent points of each axis's training prompts, for both calibrators.
        settings: losses and calibrators.
        layer: recorded in the router.
        pool: recorded in the router.

    Raises:
        DataError: no prompts, none that any expert answered acceptably, or a single group where `l2` or
            `temperature` is to be fitted.

    Reference: AlignX (arXiv 2602.07381) for the form of s; H3Fusion (arXiv 2411.17792) for the gating loss.
    Deviation: the papers do not say what W_r is trained on. Outcomes are ours: axis data over-claim, so a router
        trained on "which data set is this from" inherits the blind spots of the data.
    """
    if len(data.pooled) == 0:
        raise DataError("the router needs calibration prompts, got none; give axes.*.calibration in the recipe")
    if settings.outcome_weight > 0 and not data.acceptable.any():
        raise DataError(
            f"no expert answered any of the {len(data.pooled)} calibration prompts acceptably, so outcomes cannot "
            "teach the router; look at outcomes.jsonl, or set routing.outcome.weight to 0 to train on labels alone"
        )
    router = _unfitted(data, axes, latent, clouds, settings, layer, pool)
    inputs = router.inputs(data.pooled)
    held_out_loss: dict[float, float] = {}
    held_out: dict[float, Tensor] = {}
    method = settings.calibration
    scaled = method in ("temperature", "platt")
    temperature = settings.temperature if scaled else 1.0
    fixed = settings.l2 is not None and temperature is not None and method in ("none", "temperature")
    for l2 in () if fixed else (settings.l2,) if settings.l2 is not None else _L2_GRID:
        held_out[l2] = _held_out_logits(inputs, data, settings, l2)
        held_out_loss[l2] = float(_loss(held_out[l2], data.acceptable, data.labels, settings))
    l2 = settings.l2 if settings.l2 is not None else min(held_out_loss, key=held_out_loss.__getitem__)
    weight, bias, lambdas = _minimise(inputs, data.acceptable, data.labels, settings, l2)
    unseen = held_out.get(l2)
    if temperature is None:
        assert unseen is not None
        temperature = fit_temperature(unseen, data.acceptable)
    chances, beliefs = None, None
    if unseen is not None:
        chances = fit_chances(method, (unseen / temperature).softmax(1), data.acceptable)
        beliefs = _held_out_beliefs(unseen, data, settings)
    fitted = replace(router, weight=weight, bias=bias, lambdas=lambdas, temperature=temperature, chances=chances)
    return FittedRouter(fitted, l2, held_out_loss, beliefs)


def _held_out_beliefs(logits: Tensor, data: CalibrationSet, settings: RouterSettings) -> Beliefs:
    """Return the beliefs of every prompt under a calibration fitted on the other folds."""
    method, fold = settings.calibration, _folds(data.groups)
    alpha, confidence = torch.zeros_like(logits), torch.zeros(len(logits))
    for number in sorted(set(fold.tolist())):
        inside, outside = fold == number, fold != number
        temperature = 1.0
        if method in ("temperature", "platt"):
            temperature = settings.temperature or fit_temperature(logits[outside], data.acceptable[outside])
        weights = (logits / temperature).softmax(1)
        chances = fit_chances(method, weights[outside], data.acceptable[outside])
        alpha[inside], confidence[inside] = beliefs_of(weights[inside], method, chances)
    return Beliefs(alpha, confidence)


def _unfitted(
    data: CalibrationSet,
    axes: Sequence[str],
    latent: LatentSpace,
    clouds: Sequence[Tensor],
    settings: RouterSettings,
    layer: int,
    pool: str,
) -> AlignXRouter:
    """Return the router without W, b, lambda and T: the calibrators, and scales from calibration prompts."""
    fractal = fit_fractal(list(clouds), epsilon=settings.epsilon)
    natural = fit_natural(list(clouds), shrinkage=settings.shrinkage)
    z = latent.encode(data.pooled)
    phi = latent.features(z, projections=settings.projections)
    scores = (fractal.score(z, kind=settings.fractal_score), natural.score(z))
    return AlignXRouter(
        axes=tuple(axes),
        latent=latent,
        fractal=fractal,
        natural=natural,
        scalers=(Standardiser.fit(phi), Standardiser.fit(scores[0]), Standardiser.fit(scores[1])),
        weight=torch.zeros(len(axes), phi.shape[1]),
        bias=torch.zeros(len(axes)),
        lambdas=settings.lambdas,
        temperature=1.0,
        calibration=settings.calibration,
        chances=None,
        projections=settings.projections,
        fractal_score=settings.fractal_score,
        layer=layer,
        pool=pool,
    )


def _loss(
    logits: Float[Tensor, "N K"], acceptable: Bool[Tensor, "N K"], labels: Int[Tensor, " N"], settings: RouterSettings
) -> Tensor:
    """Return the mean loss of the prompts: outcome and gating term."""
    log_alpha = logits.log_softmax(-1)
    gating = torch.nn.functional.nll_loss(log_alpha, labels)
    told = acceptable.any(1)
    if not told.any():
        return settings.gating_weight * gating
    on_good = log_alpha[told].masked_fill(~acceptable[told], -torch.inf).logsumexp(-1)
    return -settings.outcome_weight * on_good.sum() / len(logits) + settings.gating_weight * gating


def _minimise(
    inputs: RouterInputs, acceptable: Tensor, labels: Tensor, settings: RouterSettings, l2: float
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Return W, b and the lambdas at the minimum reached from zero, in float64, by L-BFGS.

    The loss is convex where each prompt has one acceptable expert; several make it a difference of convex functions.
    """
    inputs, k = inputs.double(), acceptable.shape[1]
    weight = torch.zeros(k, inputs.phi.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    start = torch.tensor(settings.lambdas, dtype=torch.float64)
    lambdas = start.clone().requires_grad_(settings.fit_lambdas)
    learned = [weight, bias, *([lambdas] if settings.fit_lambdas else [])]
    optimizer = torch.optim.LBFGS(learned, max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # Without the pull the lambdas run away where one axis's cloud separates perfectly.
        pull = l2 * (weight.square().sum() + (lambdas - start).square().sum())
        loss = _loss(inputs.logits(weight, bias, lambdas), acceptable, labels, settings) + pull
        loss.backward()
        return loss

    optimizer.step(closure)
    first, second = lambdas.detach().tolist()
    return weight.detach().float(), bias.detach().float(), (first, second)


def _held_out_logits(inputs: RouterInputs, data: CalibrationSet, settings: RouterSettings, l2: float) -> Tensor:
    """Return logits of every prompt from a router fitted on the other folds; a group is never split."""
    fold = _folds(data.groups)
    if len(set(fold.tolist())) < 2:
        raise DataError(
            "fitting l2, the temperature or another calibration needs calibration prompts of at least two groups, got "
            f"one ({len(fold)} prompts); give more, or set routing.outcome.l2 and routing.temperature to numbers"
        )
    logits = torch.zeros(data.acceptable.shape)
    for number in sorted(set(fold.tolist())):
        inside, outside = fold == number, fold != number
        fitted = _minimise(inputs.rows(outside), data.acceptable[outside], data.labels[outside], settings, l2)
        logits[inside] = inputs.rows(inside).logits(*fitted)
    return logits


def _folds(groups: Sequence[str]) -> Int[Tensor, " N"]:
    """Return the fold of each prompt, equal within a group; a prompt without a group ("") is one of its own."""
    own = [group or f"\0{i}" for i, group in enumerate(groups)]
    names = sorted(set(own))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    fold = {name: place % _FOLDS for name, place in zip(names, order, strict=True)}
    return torch.tensor([fold[name] for name in own])
