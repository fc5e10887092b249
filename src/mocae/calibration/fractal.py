"""The fractal calibrator: how a prompt sits in each axis's cloud of prompts, by local correlation dimension."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["FractalCalibrator", "FractalScore", "fit_fractal"]

FractalScore = Literal["dimension", "log_mass"]
_RADII = 8


class FractalCalibrator(NamedTuple):
    """Clouds of K axes with the radii to count in; `score` tells how well a point agrees with each.

    Around z the members of cloud i within radii eps_j = epsilon 2^j (in units of the cloud's median distance) are
    counted. The slope of log mass against log radius is the local, pointwise correlation dimension of the cloud at z.

    Attributes:
        cloud: (N, k), latent points of all axes.
        member: (K, N), 1 where a point belongs to axis i.
        unit: (K,), median distance inside each cloud.
        dimension: (K,), median local dimension over the cloud's own points.
        spread: (K,), median absolute deviation of it.
        log_radii: (M,), natural logarithm of the radii.

    Reference: AlignX (arXiv 2602.07381), fractal calibrator, epsilon = 0.05 "clustering granularity".
    Deviation: the paper gives no formula. Counting neighbours in growing radii is the correlation dimension of
        Grassberger and Procaccia (1983) taken at one point; both readings of it (agreement with the cloud's own
        dimension, mean log mass) are ours.
    """

    cloud: Float[Tensor, "N k"]
    member: Float[Tensor, "K N"]
    unit: Float[Tensor, " K"]
    dimension: Float[Tensor, " K"]
    spread: Float[Tensor, " K"]
    log_radii: Float[Tensor, " M"]

    def log_mass(self, z: Float[Tensor, "B k"], *, skip_self: bool = False) -> Float[Tensor, "B K M"]:
        """Return log of the share of each cloud within each radius of z; half a point stands for none."""
        distance = torch.cdist(z, self.cloud)
        inside = distance[:, None, :, None] <= (self.unit[:, None] * self.log_radii.exp())[None, :, None, :]
        if skip_self:
            inside = inside & (distance > 0)[:, None, :, None]
        count = (inside * self.member[None, :, :, None]).sum(2)
        return (count.clamp_min(0.5) / self.member.sum(1)[None, :, None]).log()

    def local_dimension(self, log_mass: Float[Tensor, "B K M"]) -> Float[Tensor, "B K"]:
        """Return the least-squares slope of log mass against log radius."""
        x = self.log_radii - self.log_radii.mean()
        slope: Tensor = ((log_mass - log_mass.mean(-1, keepdim=True)) * x).sum(-1) / (x * x).sum()
        return slope

    def score(self, z: Float[Tensor, "B k"], *, kind: FractalScore) -> Float[Tensor, "B K"]:
        """Return F: minus the distance of local from cloud dimension in spreads, or the mean log mass. Higher fits."""
        mass = self.log_mass(z)
        if kind == "log_mass":
            return mass.mean(-1)
        return -(self.local_dimension(mass) - self.dimension).abs() / self.spread


def fit_fractal(clouds: list[Float[Tensor, "n k"]], *, epsilon: float) -> FractalCalibrator:
    """Return the calibrator of one cloud of latent points an axis.

    Args:
        clouds: z of each axis's training prompts.
        epsilon: smallest radius, as a share of the cloud's median distance; the others double it up to about six
            medians.

    Raises:
        DataError: a cloud has fewer than three points.
    """
    sizes = [len(cloud) for cloud in clouds]
    if min(sizes) < 3:
        raise DataError(f"the fractal calibrator needs three prompts an axis, got {sizes}; raise features.probes_per_axis")
    member = torch.zeros(len(clouds), sum(sizes))
    start = 0
    for i, size in enumerate(sizes):
        member[i, start : start + size] = 1
        start += size
    unit = torch.stack([torch.pdist(cloud).median().clamp_min(1e-9) for cloud in clouds])
    log_radii = torch.log(epsilon * 2.0 ** torch.arange(_RADII))
    ones = torch.ones(len(clouds))
    empty = FractalCalibrator(torch.cat(clouds), member, unit, ones, ones, log_radii)
    dimensions, spreads = [], []
    for i, cloud in enumerate(clouds):
        local = empty.local_dimension(empty.log_mass(cloud, skip_self=True))[:, i]
        dimensions.append(local.median())
        spreads.append((local - local.median()).abs().median().clamp_min(1e-3))
    return empty._replace(dimension=torch.stack(dimensions), spread=torch.stack(spreads))
