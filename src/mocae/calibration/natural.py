"""The natural calibrator: Gaussian log-density of a prompt under each axis, with shared covariance."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["NaturalCalibrator", "fit_natural"]


class NaturalCalibrator(NamedTuple):
    """Means of K axes and a shared whitening map.

    With a covariance all axes share, the log-density is minus half the squared Fisher-Rao distance between the
    Gaussian at z and the Gaussian at the axis's mean, up to a constant.

    Attributes:
        means: (K, k).
        whiten: (k, k), inverse Cholesky factor of the shrunk covariance.

    Reference: AlignX (arXiv 2602.07381), natural calibrator ("semantics-aware"); Amari, information geometry.
    Deviation: the paper gives no formula; this reading is ours.
    """

    means: Float[Tensor, "K k"]
    whiten: Float[Tensor, "k k"]

    def score(self, z: Float[Tensor, "B k"]) -> Float[Tensor, "B K"]:
        """Return N: the log-density of z under each axis, without the constant all axes share. Higher fits."""
        away = (z[:, None, :] - self.means[None]) @ self.whiten.T
        return -0.5 * away.square().sum(-1)


def fit_natural(clouds: list[Float[Tensor, "_ k"]], *, shrinkage: float) -> NaturalCalibrator:
    """Return the calibrator of one cloud of latent points an axis.

    Args:
        clouds: z of each axis's training prompts.
        shrinkage: share of the mean variance put on the diagonal, in [0, 1]; few prompts need more.

    Raises:
        DataError: a cloud is empty, or the covariance is singular at this shrinkage.
    """
    sizes = [len(cloud) for cloud in clouds]
    if min(sizes, default=0) < 1:
        raise DataError(f"the natural calibrator needs prompts of every axis, got {sizes}; give the axes training rows")
    means = torch.stack([cloud.mean(0) for cloud in clouds])
    centred = torch.cat([cloud - mean for cloud, mean in zip(clouds, means, strict=True)])
    covariance = centred.T @ centred / max(1, len(centred) - len(clouds))
    k = covariance.shape[0]
    shrunk = (1 - shrinkage) * covariance + shrinkage * covariance.diagonal().mean() * torch.eye(k)
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    if failed:
        raise DataError(
            f"the shared covariance of {len(centred)} prompts in {k} dimensions is singular at "
            f"routing.calibrators.shrinkage = {shrinkage}; raise it, or lower features.k"
        )
    # Contiguous as a loaded one is: products of another memory order differ in the last bit.
    whitening = torch.linalg.solve_triangular(factor, torch.eye(k), upper=False).contiguous()
    return NaturalCalibrator(means, whitening)
