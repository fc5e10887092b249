"""Novelty: how unlike the calibration prompts a prompt is, and how much of a chance that costs."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mocae.calibration.natural import NaturalCalibrator, fit_natural

__all__ = ["Novelty", "fit_discount", "fit_novelty"]

_USUAL = 0.95  # share of an axis's held-out calibration prompts inside its unit distance: these lose nothing
_MOST = 200.0


class Novelty(NamedTuple):
    """Distance of a latent point to the nearest axis's calibration prompts.

    Chances are measured on calibration prompts, and hold for prompts like them. A distance is Mahalanobis's, in the
    covariance the axes share, in units of the distance within which 95 % of the axis's own held-out prompts lie. Beyond
    1 the log-odds of every chance fall by `discount` for each time the distance grows e-fold.

    Attributes:
        means: (G, k), of the axes that have calibration prompts.
        whiten: (k, k).
        unit: (G,).
        known: (n,), distances of held-out calibration prompts, ascending.
        discount: (), at least 0.

    Reference: Lee et al. 2018 (arXiv 1807.03888), Mahalanobis distance to the nearest class.
    Deviation: the unit of each class, and a discount that is fitted.
    """

    means: Float[Tensor, "G k"]
    whiten: Float[Tensor, "k k"]
    unit: Float[Tensor, " G"]
    known: Float[Tensor, " n"]
    discount: Float[Tensor, ""]

    def distance(self, z: Float[Tensor, "B k"]) -> Float[Tensor, " B"]:
        """Return the distance to the nearest axis."""
        return (_mahalanobis(NaturalCalibrator(self.means, self.whiten), z) / self.unit).amin(1)

    def rank(self, distance: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the share of held-out calibration prompts that lie nearer, in [0, 1]."""
        return torch.searchsorted(self.known, distance.contiguous()).to(distance.dtype) / len(self.known)

    def penalty(self, distance: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return what the log-odds of every chance lose, at least 0."""
        return self.discount * _excess(distance)


def fit_novelty(
    z: Float[Tensor, "N k"], labels: Int[Tensor, " N"], fold: Int[Tensor, " N"], *, shrinkage: float
) -> tuple[Novelty, Float[Tensor, " N"]]:
    """Return the novelty of prompts against these, without a discount, and the held-out distance of each of these.

    Args:
        z: latent points of calibration prompts.
        labels: index of the axis of each.
        fold: of each, at least two different ones; a held-out distance is to the points of other folds.
        shrinkage: of the covariance, see `mocae.calibration.fit_natural`.
    """
    names, label = labels.unique(return_inverse=True)
    away = torch.full((len(z), len(names)), torch.inf)
    for number in fold.unique().tolist():
        inside, outside = fold == number, fold != number
        present = label[outside].unique()  # an axis whose prompts are all in one fold has no held-out distance
        if int(outside.sum()) == len(present):  # one prompt an axis: nothing says how far prompts of an axis lie apart
            continue
        away[inside.nonzero(), present] = _mahalanobis(
            fit_natural([z[outside & (label == i)] for i in present], shrinkage=shrinkage), z[inside]
        )
    own = away.gather(1, label[:, None])[:, 0]
    usual = own[own.isfinite()].quantile(_USUAL) if own.isfinite().any() else torch.tensor(1.0)
    unit = torch.stack(
        [
            mine.quantile(_USUAL) if mine.isfinite().all() else usual
            for mine in (own[label == i] for i in range(len(names)))
        ]
    )
    held_out = (away / unit).amin(1)
    cloud = fit_natural([z[label == i] for i in range(len(names))], shrinkage=shrinkage)
    return Novelty(*cloud, unit, held_out.sort().values, torch.zeros(())), held_out


def fit_discount(
    log_odds: Float[Tensor, " N"], distance: Float[Tensor, " N"], right: Bool[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Return the discount at which chances, known prompts' and novel ones', have the least log loss.

    Args:
        log_odds: of the chance of each prompt's first choice, from routers that did not see it, or its kind.
        distance: of each, to the prompts that they saw.
        right: whether the first choice was right.
    """
    from scipy.optimize import minimize_scalar

    excess = _excess(distance).double()

    def loss(discount: float) -> float:
        lowered = log_odds.double() - discount * excess
        return float(torch.nn.functional.binary_cross_entropy_with_logits(lowered, right.double()))

    return torch.tensor(float(minimize_scalar(loss, bounds=(0.0, _MOST), method="bounded").x))


def _mahalanobis(cloud: NaturalCalibrator, z: Float[Tensor, "B k"]) -> Float[Tensor, "B G"]:
    return (-2 * cloud.score(z)).sqrt()


def _excess(distance: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    return distance.log().clamp_min(0)
