"""The shared latent space: PCA of hidden states, and the subspace each expert moves them in."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import DataError

__all__ = ["LatentSpace", "fit_latent_space"]


class LatentSpace(NamedTuple):
    """A frozen linear map to k coordinates, and one projection for each axis.

    Attributes:
        mean: (P,), subtracted first.
        basis: (k, P), rows orthonormal in the scaled space.
        scale: (P,), each input coordinate is divided by it; infinite where prompts do not vary, so it says nothing.
        subspaces: (K, m, k), orthonormal rows U_i spanning where expert i moves hidden states.

    Reference: AlignX (arXiv 2602.07381), stage 1: task-feature matrices, latent size 256.
    Deviation: the papers do not say how activations reach the latent size, nor how the matrices are used; PCA and
        projections on the leading right singular vectors are ours.
    """

    mean: Float[Tensor, " P"]
    basis: Float[Tensor, "k P"]
    scale: Float[Tensor, " P"]
    subspaces: Float[Tensor, "K m k"]

    @property
    def k(self) -> int:
        """Number of latent coordinates."""
        return int(self.basis.shape[0])

    def encode(self, pooled: Float[Tensor, "B P"]) -> Float[Tensor, "B k"]:
        """Return the latent coordinates z of pooled hidden states."""
        return ((pooled - self.mean) / self.scale) @ self.basis.T

    def project(self, z: Float[Tensor, "B k"]) -> Float[Tensor, "B K k"]:
        """Return P_i z = U_i^T U_i z for every axis i."""
        along = torch.einsum("kml,bl->bkm", self.subspaces, z)
        return torch.einsum("bkm,kml->bkl", along, self.subspaces)

    def features(self, z: Float[Tensor, "B k"]) -> Float[Tensor, "B F"]:
        """Return phi = [z; P_1 z; ...; P_K z] with (K + 1) k values (the paper's 1024 = 4 x 256).

        Every P_i z is linear in z, so a linear router gains no reach from them, only another regularisation.
        """
        return torch.cat([z, self.project(z).flatten(1)], dim=1)


def fit_latent_space(
    states: Float[Tensor, "N P"],
    task_features: list[Float[Tensor, "_ P"]],
    *,
    k: int,
    subspace_rank: int = 8,
) -> LatentSpace:
    """Return the latent space of prompts' base states and of what experts change in them.

    The basis is fitted on both together, each scaled to unit mean norm, so that it keeps the directions in which
    prompts differ and those in which experts act.

    Args:
        states: pooled base hidden states of prompts.
        task_features: for each axis its task-feature matrix T_i, expert minus base, pooled alike.
        k: latent size; cut to what the data can span.
        subspace_rank: leading singular vectors kept of each T_i.

    Raises:
        DataError: fewer than two prompts, states that are not finite, or prompts that cannot be told apart.
    """
    if len(states) < 2:
        raise DataError(
            f"the latent space needs at least two prompts, got {len(states)}; raise features.probes_per_axis"
        )
    if not all(block.isfinite().all() for block in (states, *task_features)):
        raise DataError(
            "hidden states are not finite, so nothing can be fitted to them; set base.dtype to bf16 or fp32"
        )
    mean, spread = states.mean(0), states.std(0)
    # Relative: the mean of equal values is off by a rounding error, which must not be scaled up to a signal.
    varies = spread > 1e-5 * states.abs().amax(0)
    if not varies.any():
        raise DataError(
            f"all {len(states)} prompts have the same hidden states where the router reads; raise features.layer"
        )
    scale = torch.where(varies, spread, torch.inf)
    centred = (states - mean) / scale
    moved = [t / scale for t in task_features]
    blocks = [block / block.norm(dim=1).mean().clamp_min(1e-12) for block in (centred, *moved)]
    stacked = torch.cat([block / len(block) ** 0.5 for block in blocks])
    _, singular, rows = torch.linalg.svd(stacked, full_matrices=False)
    rank = int((singular > singular[0] * 1e-5).sum())
    basis = _fixed_sign(rows[: min(k, rank)]).contiguous()  # as a loaded one is: see `fit_natural`
    subspaces = []
    for block in moved:
        _, _, directions = torch.linalg.svd(block @ basis.T, full_matrices=False)
        subspaces.append(_fixed_sign(directions[:subspace_rank]))
    size = min(len(u) for u in subspaces)
    return LatentSpace(mean, basis, scale, torch.stack([u[:size] for u in subspaces]))


def _fixed_sign(rows: Tensor) -> Tensor:
    """Turn each row so that its largest entry is positive: singular vectors come with an arbitrary sign."""
    largest = rows.abs().argmax(dim=1, keepdim=True)
    # Contiguous: a product of the same numbers laid out otherwise, as when loaded, rounds otherwise.
    return (rows * rows.gather(1, largest).sign()).contiguous()
