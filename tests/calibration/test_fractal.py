from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mocae.calibration import FractalCalibrator, fit_fractal
from mocae.errors import DataError


def sheet(n: int, dimension: int, width: int = 10, seed: int = 0) -> Tensor:
    """Points spread evenly in a cube of `dimension`, turned into a space of `width`."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(width, dimension, generator=generator)).Q
    return torch.rand(n, dimension, generator=generator) @ frame.T


def brute_log_mass(z: Tensor, clouds: list[Tensor], epsilon: float) -> Tensor:
    """The same count, point by point in double precision."""
    found = torch.zeros(len(z), len(clouds), 8)
    for k, cloud in enumerate(clouds):
        points = cloud.double()
        between = sorted(float((points[a] - points[b]).norm()) for a in range(len(points)) for b in range(a))
        unit = between[(len(between) - 1) // 2]
        for row, point in enumerate(z.double()):
            away = [float((point - other).norm()) for other in points]
            for m in range(8):
                inside = sum(d <= unit * epsilon * 2**m for d in away)
                found[row, k, m] = math.log(max(inside, 0.5) / len(points))
    return found


@pytest.fixture(scope="module")
def clouds() -> list[Tensor]:
    return [sheet(23, 1, width=3), sheet(31, 2, width=3, seed=1)]


@pytest.fixture(scope="module")
def fitted(clouds: list[Tensor]) -> FractalCalibrator:
    return fit_fractal(clouds, epsilon=0.05)


def test_log_mass_counts_points(fitted: FractalCalibrator, clouds: list[Tensor]) -> None:
    z = torch.cat([sheet(5, 2, width=3, seed=7), clouds[0][:2], torch.full((1, 3), 50.0)])
    torch.testing.assert_close(fitted.log_mass(z), brute_log_mass(z, clouds, 0.05))
    assert (fitted.log_mass(z).diff(dim=-1) >= 0).all()
    assert fitted.log_mass(torch.full((1, 3), 50.0))[0, 0].tolist() == pytest.approx([math.log(0.5 / 23)] * 8)


def test_the_scale_of_the_space_does_not_matter(fitted: FractalCalibrator, clouds: list[Tensor]) -> None:
    z = sheet(20, 2, width=3, seed=7)
    larger = fit_fractal([cloud * 1024 for cloud in clouds], epsilon=0.05)  # a power of two rounds nothing
    assert torch.equal(larger.score(z * 1024), fitted.score(z))


def test_a_score_does_not_depend_on_the_rest_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = 100 * torch.randn(60, 64, generator=generator) + 1000  # far from 0, where products lose digits
    fitted = fit_fractal([cloud, cloud.flip(0)], epsilon=0.05)
    together = fitted.score(cloud)
    assert torch.equal(together, torch.cat([fitted.score(row[None]) for row in cloud]))
    assert torch.equal(together[:, 0], together[:, 1])
    assert (fitted.log_mass(cloud)[..., 0] == torch.tensor(1 / 60).log()).all()  # none but itself is so near


def test_points_of_a_cloud_fit_it_better_than_points_far_from_it() -> None:
    near, far = sheet(200, 2), sheet(200, 2) + 40
    fitted = fit_fractal([near, far], epsilon=0.05)
    difference = fitted.score(sheet(50, 2) * 0.98).diff(dim=1)
    assert (difference < 0).all()


def test_a_cloud_of_two_points_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"at least three prompts an axis, got \[5, 2\]; raise features.probes_per_axis"
    ):
        fit_fractal([sheet(5, 2), sheet(2, 2)], epsilon=0.05)
    with pytest.raises(DataError, match=r"got \[\]"):
        fit_fractal([], epsilon=0.05)


def test_a_cloud_of_one_point_many_times_stays_finite() -> None:
    fitted = fit_fractal([torch.ones(5, 3), sheet(9, 2, width=3)], epsilon=0.05)
    assert fitted.score(torch.cat([torch.ones(1, 3), sheet(3, 2, width=3)])).isfinite().all()
