from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocae.calibration import fit_latent_space
from mocae.errors import DataError


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@settings(max_examples=25, deadline=None)
@given(
    axes=st.integers(1, 4),
    width=st.integers(2, 12),
    k=st.integers(1, 16),
    rank=st.integers(1, 9),
    seed=st.integers(0, 9),
)
def test_basis_and_projections_are_what_they_say(axes: int, width: int, k: int, rank: int, seed: int) -> None:
    states = some(15, width, seed=seed) * torch.logspace(-2, 2, width)
    latent = fit_latent_space(
        states, [some(7 + i, width, seed=seed + i + 1) for i in range(axes)], k=k, subspace_rank=rank
    )
    size = min(k, width)
    assert latent.k == size
    close(latent.basis @ latent.basis.T, torch.eye(size))
    assert latent.subspaces.shape == (axes, min(rank, size, 7), size)
    for rows in latent.subspaces:
        close(rows @ rows.T, torch.eye(len(rows)))
        matrix = rows.T @ rows
        close(matrix, matrix.T)  # symmetric
        close(matrix @ matrix, matrix)  # idempotent
    z = latent.encode(states)
    once = latent.project(z)
    for i in range(axes):
        close(latent.project(once[:, i])[:, i], once[:, i], 1e-4)
    assert latent.features(z).shape == (15, (axes + 1) * size)
    assert torch.equal(latent.features(z)[:, :size], z)


def test_the_subspace_of_an_axis_is_where_its_expert_moves_states() -> None:
    states = some(40, 6)
    direction = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0, 1.0])
    latent = fit_latent_space(states, [some(9, 1, seed=1) * direction], k=6, subspace_rank=1)
    moved = (direction / latent.scale) @ latent.basis.T
    close(latent.project(moved[None])[0, 0], moved, 1e-4)
    across = some(1, 6, seed=3)
    across -= (across @ moved) / (moved @ moved) * moved
    close(latent.project(across)[0, 0], torch.zeros(6), 1e-4)


def test_k_is_cut_to_what_the_data_span() -> None:
    states = some(30, 2) @ some(2, 8, seed=1)
    latent = fit_latent_space(states, [some(5, 1, seed=2) @ some(1, 8, seed=3)], k=8)
    assert latent.k == 3  # two directions of the prompts, one of the expert


def test_the_order_of_the_prompts_changes_nothing() -> None:
    states, moved = some(20, 5), [some(6, 5, seed=1), some(8, 5, seed=2)]
    one = fit_latent_space(states, moved, k=4, subspace_rank=2)
    assert all(
        torch.equal(a, b) for a, b in zip(one, fit_latent_space(states, moved, k=4, subspace_rank=2), strict=True)
    )
    other = fit_latent_space(states.flip(0), [m.flip(0) for m in moved], k=4, subspace_rank=2)
    for a, b in zip(one, other, strict=True):  # signs too: the largest entry of a row is positive
        close(a, b, 1e-4)
    largest = one.basis.gather(1, one.basis.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_a_coordinate_in_which_prompts_do_not_differ_says_nothing() -> None:
    states, moved = some(20, 4), some(6, 4, seed=1)
    states[:, 1] = 0.1  # the mean of twenty such values is not exactly 0.1
    latent = fit_latent_space(states, [moved], k=4)
    assert latent.k == 3
    elsewhere = states.clone()
    elsewhere[:, 1] = 1e4
    assert torch.equal(latent.encode(elsewhere), latent.encode(states))
    assert latent.encode(states).abs().max() < 10


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(DataError, match=r"at least two prompts, got 1; raise features.probes_per_axis"):
        fit_latent_space(some(1, 4), [some(3, 4)], k=2)
    with pytest.raises(DataError, match=r"all 5 prompts have the same hidden states.*raise features.layer"):
        fit_latent_space(torch.full((5, 4), 0.1), [some(3, 4)], k=2)
    with pytest.raises(DataError, match=r"not finite.*set base.dtype"):
        fit_latent_space(some(5, 4), [some(3, 4).log()], k=2)
