from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from mocae.calibration import fit_natural
from mocae.errors import DataError


def cloud(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(4, 4, generator=generator)
    return torch.randn(n, 4, generator=generator) @ mixed + 3 * torch.randn(4, generator=generator)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_scores_are_gaussian_log_densities_but_for_one_constant(shrinkage: float) -> None:
    clouds = [cloud(30, 1), cloud(50, 2), cloud(20, 3)]
    scores = fit_natural(clouds, shrinkage=shrinkage).score(z := cloud(40, 4))
    within = torch.cat([c - c.mean(0) for c in clouds]).double()
    covariance = within.T @ within / (len(within) - 3)
    covariance = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / 4 * torch.eye(4)
    density = [MultivariateNormal(c.double().mean(0), covariance).log_prob(z.double()) for c in clouds]
    constant = scores.double() - torch.stack(density, dim=1)
    torch.testing.assert_close(constant, constant[:1, :1].expand_as(constant), atol=1e-3, rtol=1e-4)
    assert (scores <= 0).all()


def test_the_mean_of_an_axis_fits_it_perfectly() -> None:
    clouds = [cloud(30, 1), cloud(50, 2)]
    scores = fit_natural(clouds, shrinkage=0.1).score(torch.stack([c.mean(0) for c in clouds]))
    assert scores.diagonal().tolist() == [0.0, 0.0]
    assert (scores.flip(1).diagonal() < 0).all()


def test_a_singular_covariance_is_refused_and_shrinkage_mends_it() -> None:
    clouds = [cloud(2, 1), cloud(2, 2)]
    clouds[0][:, 0] = clouds[1][:, 0] = 1.0
    message = (
        r"4 prompts in 4 dimensions is singular at routing.calibrators.shrinkage = 0.0; raise it, or lower features.k"
    )
    with pytest.raises(DataError, match=message):
        fit_natural(clouds, shrinkage=0.0)
    assert fit_natural(clouds, shrinkage=0.5).score(clouds[0]).isfinite().all()


def test_an_axis_without_prompts_is_refused() -> None:
    with pytest.raises(DataError, match=r"prompts of every axis, got \[3, 0\]"):
        fit_natural([cloud(3, 1), cloud(0, 2)], shrinkage=0.1)
