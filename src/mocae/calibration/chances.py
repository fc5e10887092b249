"""Calibration of logits: from what a router prefers to the chance that each expert's answer is acceptable."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["OWN_CHANCES", "AffineChances", "CalibrationMethod", "Chances", "IsotonicChances", "fit_chances", "log_odds"]

CalibrationMethod = Literal["none", "temperature", "platt", "vector", "dirichlet", "isotonic"]
OWN_CHANCES: tuple[CalibrationMethod, ...] = ("vector", "dirichlet", "isotonic")
"""Methods that fit one chance an expert; the weights are these chances, normalised."""

_LEAST = 1e-7  # a softmax in fp32 can be 0 or 1, whose logarithm or odds would not be finite


class AffineChances(NamedTuple):
    """p = sigmoid(slope x + bias), x the log-odds of the weights (platt, vector) or their logarithm (dirichlet).

    Attributes:
        slope: (K, K); a multiple of the identity for "platt", diagonal for "vector".
        bias: (K,).
        logarithm: (), 1 where x is the logarithm.
    """

    slope: Float[Tensor, "K K"]
    bias: Float[Tensor, " K"]
    logarithm: Float[Tensor, ""]

    def __call__(self, alpha: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return p of weights that sum to 1."""
        x = alpha.clamp_min(_LEAST).log() if self.logarithm else log_odds(alpha)
        return (x @ self.slope.T + self.bias).sigmoid()


class IsotonicChances(NamedTuple):
    """p_i is a non-decreasing function of the weight alpha_i: straight lines between knots, flat outside.

    Attributes:
        x: (K, M), knots in ascending order; the last is repeated where an expert has fewer.
        y: (K, M), chances at them.
    """

    x: Float[Tensor, "K M"]
    y: Float[Tensor, "K M"]

    def __call__(self, alpha: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return p of weights that sum to 1."""
        at = alpha.T.contiguous()  # (K, B)
        right = torch.searchsorted(self.x, at).clamp(1, self.x.shape[1] - 1)
        x0, x1 = self.x.gather(1, right - 1), self.x.gather(1, right)
        y0, y1 = self.y.gather(1, right - 1), self.y.gather(1, right)
        share = ((at - x0) / (x1 - x0).clamp_min(1e-12)).clamp(0, 1)
        return (y0 + share * (y1 - y0)).T


Chances = AffineChances | IsotonicChances


def log_odds(p: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """Return log(p / (1 - p)), finite also where p is 0 or 1.

    >>> log_odds(torch.tensor([0.5, 0.75])).exp()
    tensor([1.0000, 3.0000])
    """
    p = p.clamp(_LEAST, 1 - _LEAST)
    return p.log() - (-p).log1p()


def fit_chances(
    method: CalibrationMethod, alpha: Float[Tensor, "N K"], acceptable: Bool[Tensor, "N K"]
) -> Chances | None:
    """Return what turns weights into chances, None for "none" and "temperature", where the weights are the chances.

    Several experts, or none, can answer a prompt acceptably, so each expert's event is fitted by itself (one against
    the rest) and the chances of a prompt need not sum to 1. "platt" fits one curve for the largest weight of each
    prompt alone: two numbers, for few verdicts. "vector" fits slope and bias of each expert, "dirichlet" lets each
    chance depend on all weights, "isotonic" assumes no shape and needs the most verdicts.

    Args:
        method: see above.
        alpha: softmax of held-out logits: from routers that did not see these prompts.
        acceptable: outcomes of the experts.

    Raises:
        DataError: no prompts.

    Reference: Platt 1999 (with his smoothed targets); Guo et al. 2017 (arXiv 1706.04599), vector scaling; Kull et al.
        2019 (arXiv 1910.12656), Dirichlet calibration; Zadrozny and Elkan 2002, isotonic, one against the rest.
    Deviation: vector and Dirichlet scaling end in a softmax there, since exactly one class is right; here in a sigmoid
        an expert.
    """
    if method in ("none", "temperature"):
        return None
    if len(alpha) == 0:
        raise DataError(f"routing.calibration: {method} needs held-out calibration prompts, and there are none")
    alpha, k = alpha.float(), alpha.shape[1]
    if method == "isotonic":
        return _isotonic(alpha, acceptable)
    if method == "platt":
        top = alpha.argmax(1, keepdim=True)
        slope, bias = _logistic(log_odds(alpha).gather(1, top), acceptable.gather(1, top)[:, 0])
        return AffineChances(slope * torch.eye(k), bias.expand(k).clone(), torch.tensor(0.0))
    if method == "vector":
        x = log_odds(alpha)
        fits = [_logistic(x[:, i : i + 1], acceptable[:, i]) for i in range(k)]
        slopes = torch.cat([slope for slope, _ in fits])
        return AffineChances(torch.diag(slopes), torch.stack([bias for _, bias in fits]), torch.tensor(0.0))
    x = alpha.clamp_min(_LEAST).log()
    fits = [_logistic(x, acceptable[:, i]) for i in range(k)]
    return AffineChances(torch.stack([s for s, _ in fits]), torch.stack([b for _, b in fits]), torch.tensor(1.0))


def _logistic(x: Float[Tensor, "N F"], right: Bool[Tensor, " N"]) -> tuple[Float[Tensor, " F"], Float[Tensor, ""]]:
    """Return slope and bias of a logistic regression on Platt's smoothed targets, so that neither runs away."""
    from sklearn.linear_model import LogisticRegression

    n, n_right = len(right), int(right.sum())
    target = torch.where(right, (n_right + 1) / (n_right + 2), 1 / (n - n_right + 2)).double()
    regression = LogisticRegression(C=10.0, max_iter=1000)
    twice = torch.cat([x, x]).double().numpy()
    is_right = [1] * n + [0] * n  # a target between 0 and 1 is two weighted rows
    regression.fit(twice, is_right, sample_weight=torch.cat([target, 1 - target]).numpy())
    return torch.from_numpy(regression.coef_[0]).float(), torch.tensor(float(regression.intercept_[0]))


def _isotonic(alpha: Float[Tensor, "N K"], acceptable: Bool[Tensor, "N K"]) -> IsotonicChances:
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(alpha) + 2)  # nothing is certain after N prompts
    knots = []
    for weights, right in zip(alpha.T, acceptable.T, strict=True):
        fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        fitted.fit(weights.double().numpy(), right.double().numpy())
        knots.append([torch.from_numpy(t).float() for t in (fitted.X_thresholds_, fitted.y_thresholds_)])
    most = max(2, *(len(x) for x, _ in knots))
    padded = [[torch.cat([t, t[-1:].expand(most - len(t))]) for t in pair] for pair in knots]
    return IsotonicChances(torch.stack([x for x, _ in padded]), torch.stack([y for _, y in padded]))
