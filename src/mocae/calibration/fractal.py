"""The fractal calibrator: how much of each axis's cloud of prompts lies around a prompt, over growing radii."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["FractalCalibrator", "fit_fractal"]

_RADII = 8


class FractalCalibrator(NamedTuple):
    """Clouds of K axes with the radii to count in; `score` tells how well a point agrees with each.

    Around z the members of cloud i within radii eps_j = epsilon 2^j (in units of the cloud's median distance) are
    counted, as for the local correlation dimension. Where distances are all alike (many dimensions, few points) one
    doubling of the radius takes in the whole cloud, and the slope of these counts says little; their mean log does.

    Attributes:
        cloud: (N, k), latent points of all axes.
        member: (K, N), 1 where a point belongs to axis i.
        unit: (K,), median distance inside each cloud.
        log_radii: (M,), natural logarithm of the radii.

    Reference: AlignX (arXiv 2602.07381), fractal calibrator, epsilon = 0.05 "clustering granularity".
    Deviation: the paper gives no formula. Counting neighbours in growing radii is the correlation dimension of
        Grassberger and Procaccia (1983) taken at one point; reading it by the mean log mass is ours.
    """

    cloud: Float[Tensor, "N k"]
    member: Float[Tensor, "K N"]
    unit: Float[Tensor, " K"]
    log_radii: Float[Tensor, " M"]

    def log_mass(self, z: Float[Tensor, "B k"]) -> Float[Tensor, "B K M"]:
        """Return log of the share of each cloud within each radius of z; half a point stands for none."""
        # By differences: the faster product form is off by 1e-2 of a norm near 0, and differently for each batch size.
        distance = torch.cdist(z, self.cloud, compute_mode="donot_use_mm_for_euclid_dist")
        radii = self.unit[:, None] * self.log_radii.exp()
        counts = [
            (distance[:, members, None] <= radius).sum(1)
            for members, radius in zip(self.member.bool(), radii, strict=True)
        ]
        return (torch.stack(counts, dim=1).clamp_min(0.5) / self.member.sum(1)[:, None]).log()

    def score(self, z: Float[Tensor, "B k"]) -> Float[Tensor, "B K"]:
        """Return F, the mean log mass over the radii: the higher, the more of the cloud is near."""
        return self.log_mass(z).mean(-1)


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
    return FractalCalibrator(torch.cat(clouds), member, unit, log_radii)
