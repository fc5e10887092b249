"""What a router made of a prompt: where it stands among the axes' prompts, and what spoke for each expert."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.calibration import AlignXRouter

__all__ = ["Plane", "Why", "explain"]

_POINTS = 60
"""Points drawn of each axis's cloud at most."""


class Plane(NamedTuple):
    """The plane of the latent space in which the centres of the axes lie farthest apart.

    Attributes:
        here: (2,), the prompt.
        clouds: for each axis the places (n, 2) of its training prompts.
    """

    here: Float[Tensor, " 2"]
    clouds: tuple[Float[Tensor, "_ 2"], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Why:
    """The sum behind a router's chances.

    The three parts are the terms of its log-odds, above 0 for an expert, below 0 against it. With the calibration
    "temperature" they are those of s / T, each less its mean over the axes, which a softmax does not see.

    Attributes:
        axes: names, in the order of all that follows.
        features: (K,), from the latent coordinates: (W phi + b) / T.
        geometry: (K,), from the fractal calibrator: lambda1 F / T.
        semantics: (K,), from the natural calibrator: lambda2 N / T.
        chances: (K,), that each expert's answer would be acceptable, lowered for prompts unlike the calibration
            prompts; before any steering.
        novelty: share of held-out calibration prompts that are more like the others than this one; nan where the
            router does not say.
        layer: decoder layer whose input was read.
        plane: where the prompt stands.
    """

    axes: tuple[str, ...]
    features: Float[Tensor, " K"]
    geometry: Float[Tensor, " K"]
    semantics: Float[Tensor, " K"]
    chances: Float[Tensor, " K"]
    novelty: float
    layer: int
    plane: Plane


def explain(router: AlignXRouter, pooled: Float[Tensor, "1 P"]) -> Why:
    """Return what a router made of one prompt.

    Args:
        router: fitted.
        pooled: the prompt's pooled hidden states.

    Raises:
        ModelMismatchError: they are those of another model.
    """
    beliefs, inputs = router.beliefs(pooled), router.inputs(pooled)

    def part(scores: Tensor) -> Tensor:
        common = scores.mean(1, keepdim=True) if router.novelty is None else 0.0
        return (scores - common)[0] / router.temperature

    return Why(
        axes=router.axes,
        features=part(inputs.phi @ router.weight.T + router.bias),
        geometry=part(router.lambdas[0] * inputs.fractal),
        semantics=part(router.lambdas[1] * inputs.natural),
        chances=beliefs.chances[0],
        novelty=float(beliefs.novelty[0]),
        layer=router.layer,
        plane=_plane(router, router.latent.encode(pooled)),
    )


def _plane(router: AlignXRouter, z: Float[Tensor, "1 k"]) -> Plane:
    """Return the prompt and thinned clouds in the plane of the axes' centres, in the natural calibrator's metric."""
    whiten, means = router.natural.whiten, router.natural.means @ router.natural.whiten.T
    _, _, rows = torch.linalg.svd(means - means.mean(0), full_matrices=True)
    across = rows[:2]
    if len(across) < 2:  # a latent space of one coordinate
        across = torch.cat([across, torch.zeros_like(across)])
    onto = whiten.T @ across.T
    clouds = []
    for mine in router.fractal.member.bool():
        points = router.fractal.cloud[mine]
        clouds.append(points[:: -(-len(points) // _POINTS)] @ onto)
    return Plane((z @ onto)[0], tuple(clouds))
