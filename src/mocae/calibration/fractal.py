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
    counted. The slope of log mass against log radius is the local, pointwise correlation dimension of the cloud at z:
    about 1 on a line, 2 on a sheet. Where distances are all alike (many dimensions, few points) one doubling of the
    radius takes in the whole cloud, and the slope says little; the mean log mass still does.

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
        """Return log of the share of each cloud within each radius of z; half a point stands for none.

        Args:
            z: latent points.
            skip_self: leave out cloud points that are z itself.
        """
        # By differences: the faster product form is off by 1e-2 of a norm near 0, and differently for each batch size.
        distance = torch.cdist(z, self.cloud, compute_mode="donot_use_mm_for_euclid_dist")
        radii = self.unit[:, None] * self.log_radii.exp()
        counts = []
        for mine, radius in zip(self.member.bool(), radii, strict=True):
            near = distance[:, mine, None]  # (B, n, 1)
            inside = near <= radius
            counts.append((inside & (near > 0) if skip_self else inside).sum(1))
        count = torch.stack(counts, dim=1)  # (B, K, M)
        return (count.clamp_min(0.5) / self.member.sum(1)[:, None]).log()

    def local_dimension(self, log_mass: Float[Tensor, "B K M"]) -> Float[Tensor, "B K"]:
        """Return the least-squares slope of log mass against log radius, 0 where the mass never changes.

        Only the scaling region counts: from the last radius that holds no more than the smallest, to the last that
        holds less than the largest (or the first that holds as much, where a slope would lack its second radius).
        """
        index = torch.arange(log_mass.shape[-1])
        low = (log_mass == log_mass[..., :1]).sum(-1, keepdim=True) - 1
        high = len(index) - (log_mass == log_mass[..., -1:]).sum(-1, keepdim=True)
        high = torch.where(high - low > 1, high - 1, high)
        used = ((index >= low) & (index <= high)).to(log_mass.dtype)
        x = self.log_radii - (used * self.log_radii).sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp_min(1)
        return (used * x * log_mass).sum(-1) / (used * x * x).sum(-1).clamp_min(1e-9)

    def score(self, z: Float[Tensor, "B k"], *, kind: FractalScore) -> Float[Tensor, "B K"]:
        """Return F: minus the distance of local from cloud dimension in spreads, or the mean log mass. Higher fits."""
        mass = self.log_mass(z)
        if kind == "log_mass":
            return mass.mean(-1)
        return -(self.local_dimension(mass) - self.dimension).abs() / self.spread


def fit_fractal(clouds: list[Float[Tensor, "_ k"]], *, epsilon: float) -> FractalCalibrator:
    """Return the calibrator of one cloud of latent points an axis.

    Args:
        clouds: z of each axis's training prompts.
        epsilon: smallest radius, as a share of the cloud's median distance; the others double it up to about six
            medians.

    Raises:
        DataError: a cloud has fewer than three points.
    """
    sizes = [len(cloud) for cloud in clouds]
    if min(sizes, default=0) < 3:
        raise DataError(
            f"the fractal calibrator needs at least three prompts an axis, got {sizes}; raise features.probes_per_axis"
        )
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    member = (owner == torch.arange(len(sizes))[:, None]).float()
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
