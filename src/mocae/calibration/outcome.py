"""Outcome calibration: fit the router on which expert's answer a judge accepted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocae.calibration.fractal import fit_fractal
from mocae.calibration.latent import LatentSpace
from mocae.calibration.natural import fit_natural
from mocae.calibration.novelty import fit_discount, fit_novelty
from mocae.calibration.router import (
    AlignXRouter,
    Beliefs,
    CalibrationMethod,
    RouterInputs,
    Standardiser,
    chances_of,
)
from mocae.calibration.temperature import fit_temperature
from mocae.errors import DataError, NothingToLearnError

__all__ = ["CalibrationSet", "FittedRouter", "RouterSettings", "fit_router"]

_L2_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How a router is fitted; None for `l2` or `temperature` means fitted on held-out folds.

    Attributes:
        outcome_weight: weight of the outcome loss.
        gating_weight: weight of the gating loss, cross-entropy against the axis a prompt came from.
        l2: ridge penalty on W.
        temperature: softmax temperature of the calibration "temperature"; "chances" has none.
        calibration: how logits become weights and chances, see `AlignXRouter`.
        lambdas: (lambda1, lambda2) of the fractal and natural terms.
        epsilon: smallest radius of the fractal calibrator.
        shrinkage: of the natural calibrator's covariance, and of the one that novelty is measured in.
        novelty: whether chances are lowered for prompts unlike the calibration prompts; their novelty is told anyhow.
    """

    outcome_weight: float = 1.0
    gating_weight: float = 0.01
    l2: float | None = None
    temperature: float | None = None
    calibration: CalibrationMethod = "chances"
    lambdas: tuple[float, float] = (0.6, 0.4)
    epsilon: float = 0.05
    novelty: bool = True
    shrinkage: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """Prompts with the verdicts on every expert's answer.

    Attributes:
        pooled: (N, P), pooled hidden states.
        acceptable: (N, K), whether expert k's answer was acceptable.
        labels: (N,), index of the axis the prompt came from.
        groups: N labels; prompts of one group stay in one fold.
        kinds: N labels; novelty is judged by leaving out one kind after another. None: the axes.
    """

    pooled: Float[Tensor, "N P"]
    acceptable: Bool[Tensor, "N K"]
    labels: Int[Tensor, " N"]
    groups: Sequence[str]
    kinds: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FittedRouter:
    """A router with what its fitting found on held-out folds.

    Attributes:
        router: fitted on all prompts.
        l2: the ridge penalty chosen.
        held_out_loss: log loss of each penalty tried.
        held_out_beliefs: what is believed of every calibration prompt, from a router and a calibration fitted on the
            other folds; None where nothing was held out.
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

    Minimises mean_x [ w_o L(s(x), R(x)) + w_g CE(softmax s(x), axis of x) ] + l2 |W|^2 with s = W phi + b + lambda1 F +
    lambda2 N. With the calibration "chances" L is the log loss of every expert's verdict, so a prompt that nobody, or
    everybody, answered acceptably teaches as much as any; curves, and the discount of novel prompts, are then fitted on
    held-out logits. With "temperature" it is the papers' form, -log sum_i alpha_i R_i with alpha = softmax(s): a prompt
    nobody answered acceptably says nothing there, and lowers the confidence through T alone. The same inputs give
    the same router.

    Args:
        data: calibration prompts; never the training or test prompts.
        axes: names of the experts.
        latent: the latent space.
        clouds: latent points of each axis's training prompts, for both calibrators.
        settings: losses and calibrators.
        layer: recorded in the router.
        pool: recorded in the router.

    Raises:
        DataError: no prompts, none that any expert answered acceptably, or a single group where something is to be
            fitted on held-out prompts.

    Reference: AlignX (arXiv 2602.07381) for the form of s; H3Fusion (arXiv 2411.17792) for the gating loss.
    Deviation: the papers do not say what W_r is trained on. Outcomes are ours: axis data over-claim, so a router
        trained on "which data set is this from" inherits the blind spots of the data.
    """
    if len(data.pooled) == 0:
        raise DataError("the router needs calibration prompts, got none; give axes.*.calibration in the recipe")
    if settings.outcome_weight > 0 and not data.acceptable.any():
        raise NothingToLearnError(
            f"no expert answered any of the {len(data.pooled)} calibration prompts acceptably, so outcomes cannot "
            "teach the router; look at outcomes.jsonl, or set routing.outcome.weight to 0 to train on labels alone"
        )
    router = _unfitted(data, axes, latent, clouds, settings, layer, pool)
    inputs = router.inputs(data.pooled)
    held_out: dict[float, Tensor] = {}
    if settings.calibration == "chances" or settings.l2 is None or settings.temperature is None:
        fold = _several_folds(data.groups)
        for l2 in _L2_GRID if settings.l2 is None else (settings.l2,):
            held_out[l2] = _logits_without(fold, inputs, data, settings, l2)
    losses = {l2: float(_loss(unseen, data.acceptable, data.labels, settings)) for l2, unseen in held_out.items()}
    l2 = settings.l2 if settings.l2 is not None else min(losses, key=losses.__getitem__)
    weight, bias, lambdas = _minimise(inputs, data.acceptable, data.labels, settings, l2)
    router = replace(router, weight=weight, bias=bias, lambdas=lambdas)
    if not held_out:
        assert settings.temperature is not None
        return FittedRouter(replace(router, temperature=settings.temperature), l2, losses)
    unseen = held_out[l2]
    if settings.calibration == "temperature":
        temperature = settings.temperature or fit_temperature(unseen, data.acceptable)
        beliefs = _held_out_tempered(unseen, data, settings, fold)
        return FittedRouter(replace(router, temperature=temperature), l2, losses, beliefs)
    z = latent.encode(data.pooled)
    novelty, distance = fit_novelty(z, data.labels, fold, shrinkage=settings.shrinkage)
    if settings.novelty:
        known = _choice(unseen, data.acceptable, distance)
        novel = _without_each_kind(inputs, z, data, settings, l2, fold)
        novelty = novelty._replace(discount=fit_discount(*(torch.cat(pair) for pair in zip(known, novel, strict=True))))
    return FittedRouter(replace(router, novelty=novelty), l2, losses, chances_of(unseen, novelty, distance))


def _choice(logits: Tensor, acceptable: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-odds of each prompt's first choice, its distance, and whether the choice was right."""
    top = logits.argmax(1, keepdim=True)
    return logits.gather(1, top)[:, 0], distance, acceptable.gather(1, top)[:, 0]


def _without_each_kind(
    inputs: RouterInputs,
    z: Tensor,
    data: CalibrationSet,
    settings: RouterSettings,
    l2: float,
    fold: Int[Tensor, " N"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `_choice` of the prompts of every kind, from a router and a novelty that know the other kinds alone."""
    names = data.kinds if data.kinds is not None else [str(label) for label in data.labels.tolist()]
    parts = []
    for name in sorted(set(names)):
        inside = torch.tensor([other == name for other in names])
        outside = ~inside
        if len(set(fold[outside].tolist())) < 2:
            continue  # nothing is left to know
        fitted = _minimise(inputs.rows(outside), data.acceptable[outside], data.labels[outside], settings, l2)
        novelty, _ = fit_novelty(z[outside], data.labels[outside], fold[outside], shrinkage=settings.shrinkage)
        logits = inputs.rows(inside).logits(*fitted)
        parts.append(_choice(logits, data.acceptable[inside], novelty.distance(z[inside])))
    if not parts:
        return torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    first, second, third = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second), torch.cat(third)


def _held_out_tempered(
    logits: Tensor, data: CalibrationSet, settings: RouterSettings, fold: Int[Tensor, " N"]
) -> Beliefs:
    """Return the beliefs of every prompt at a temperature fitted on the other folds."""
    alpha = torch.zeros_like(logits)
    for number in sorted(set(fold.tolist())):
        inside, outside = fold == number, fold != number
        temperature = settings.temperature or fit_temperature(logits[outside], data.acceptable[outside])
        alpha[inside] = (logits[inside] / temperature).softmax(1)
    return Beliefs(alpha, alpha, torch.full((len(alpha),), torch.nan))


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
    phi = latent.features(z)
    scores = (fractal.score(z), natural.score(z))
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
        novelty=None,
        layer=layer,
        pool=pool,
    )


def _loss(
    logits: Float[Tensor, "N K"], acceptable: Bool[Tensor, "N K"], labels: Int[Tensor, " N"], settings: RouterSettings
) -> Tensor:
    """Return the mean loss of the prompts: outcome and gating term."""
    log_alpha = logits.log_softmax(-1)
    gating = settings.gating_weight * torch.nn.functional.nll_loss(log_alpha, labels)
    if settings.calibration == "chances":
        right = acceptable.to(logits.dtype)
        every = torch.nn.functional.binary_cross_entropy_with_logits(logits, right, reduction="sum")
        return settings.outcome_weight * every / len(logits) + gating
    answered = acceptable.any(1)
    if not answered.any():
        return gating
    on_good = log_alpha[answered].masked_fill(~acceptable[answered], -torch.inf).logsumexp(-1)
    return -settings.outcome_weight * on_good.sum() / len(logits) + gating


def _minimise(
    inputs: RouterInputs, acceptable: Tensor, labels: Tensor, settings: RouterSettings, l2: float
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Return W, b and the lambdas at the minimum reached from zero, in float64, by L-BFGS.

    The loss of "chances" is convex; that of "temperature" where each prompt has one acceptable expert, while several
    make it a difference of convex functions.
    """
    inputs, k = inputs.double(), acceptable.shape[1]
    weight = torch.zeros(k, inputs.phi.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(k, dtype=torch.float64, requires_grad=True)
    lambdas = torch.tensor(settings.lambdas, dtype=torch.float64)
    # A softmax at T = 1 takes the terms at their given size. Chances take them at the size that the verdicts show.
    sized = settings.calibration == "chances"
    size = torch.full((), 0.0 if sized else 1.0, dtype=torch.float64, requires_grad=sized)
    learned = [each for each in (weight, bias, size) if each.requires_grad]
    optimizer = torch.optim.LBFGS(learned, max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        # Without the pull the terms run away where one axis's cloud separates perfectly.
        pull = l2 * (weight.square().sum() + size.square())
        loss = _loss(inputs.logits(weight, bias, size * lambdas), acceptable, labels, settings) + pull
        loss.backward()
        return loss

    optimizer.step(closure)
    first, second = (size * lambdas).detach().tolist()
    return weight.detach().float(), bias.detach().float(), (first, second)


def _logits_without(
    fold: Int[Tensor, " N"], inputs: RouterInputs, data: CalibrationSet, settings: RouterSettings, l2: float
) -> Tensor:
    """Return logits of every prompt from a router fitted on the other folds."""
    logits = torch.zeros(data.acceptable.shape)
    for number in sorted(set(fold.tolist())):
        inside, outside = fold == number, fold != number
        fitted = _minimise(inputs.rows(outside), data.acceptable[outside], data.labels[outside], settings, l2)
        logits[inside] = inputs.rows(inside).logits(*fitted)
    return logits


def _several_folds(groups: Sequence[str]) -> Int[Tensor, " N"]:
    """Return the fold of each prompt; a group is never split.

    Raises:
        DataError: a single group.
    """
    fold = _folds(groups)
    if len(set(fold.tolist())) < 2:
        raise NothingToLearnError(
            "fitting chances, l2 or a temperature needs calibration prompts of at least two groups, got one "
            f"({len(fold)} prompts); give more, or set routing.calibration to temperature and routing.outcome.l2 and "
            "routing.temperature to numbers"
        )
    return fold


def _folds(groups: Sequence[str]) -> Int[Tensor, " N"]:
    """Return the fold of each prompt, equal within a group; a prompt without a group ("") is one of its own."""
    own = [group or f"\0{i}" for i, group in enumerate(groups)]
    names = sorted(set(own))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    fold = {name: place % _FOLDS for name, place in zip(names, order, strict=True)}
    return torch.tensor([fold[name] for name in own])
