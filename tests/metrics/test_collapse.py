from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from mocae.errors import ConfigError, DataError
from mocae.metrics import chance_cka, chance_principal_angles, forgetting_matrix, linear_cka, principal_angles

STAGES = {
    "base": {"helpful": 0.5, "harmless": 0.25, "honest": 0.75},
    "helpful": {"helpful": 1.0, "harmless": 0.0, "honest": 0.5},
    "harmless": {"helpful": 0.25, "harmless": 1.0, "honest": 0.5},
}


def features(seed: int, n: int = 40, f: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, f))


def hsic_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA as the ratio of Hilbert-Schmidt criteria, with an explicit centring matrix."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def test_forgetting_by_hand() -> None:
    result = forgetting_matrix(STAGES)
    assert result.stages == ("base", "helpful", "harmless")
    assert result.axes == ("helpful", "harmless", "honest")
    assert result.rates.tolist() == [[0.5, 0.25, 0.75], [1.0, 0.0, 0.5], [0.25, 1.0, 0.5]]
    assert result.forgetting == {"helpful": 0.75, "harmless": -0.75, "honest": 0.25}
    assert result.mean_forgetting == pytest.approx(0.25 / 3)


def test_order_of_axes_within_a_stage_does_not_matter() -> None:
    shuffled = {stage: dict(reversed(list(rates.items()))) for stage, rates in STAGES.items()} | {
        "base": STAGES["base"]
    }
    assert forgetting_matrix(shuffled).forgetting == forgetting_matrix(STAGES).forgetting
    assert (forgetting_matrix(shuffled).rates == forgetting_matrix(STAGES).rates).all()


def test_forgetting_refuses() -> None:
    with pytest.raises(DataError, match=r"stages are \['helpful', 'base'\]; the first must be 'base'"):
        forgetting_matrix({"helpful": STAGES["helpful"], "base": STAGES["base"]})
    with pytest.raises(DataError, match="no stage after 'base'"):
        forgetting_matrix({"base": STAGES["base"]})
    with pytest.raises(DataError, match=r"stage 'helpful' has axes \['helpful'\], 'base' has"):
        forgetting_matrix({"base": STAGES["base"], "helpful": {"helpful": 1.0}})
    with pytest.raises(DataError, match=r"rate of stage 'b' on axis 'a' is 50\.0"):
        forgetting_matrix({"base": {"a": 0.5}, "b": {"a": 50.0}})
    with pytest.raises(DataError, match="stages are"):
        forgetting_matrix({})


@pytest.mark.parametrize(("n", "f1", "f2"), [(40, 12, 5), (10, 30, 20), (10, 4, 30)])
def test_cka_agrees_with_the_kernel_form(n: int, f1: int, f2: int) -> None:
    x, y = features(0, n, f1), features(1, n, f2) + 3
    y[:, :4] += x[:, :4]
    assert linear_cka(x, y) == pytest.approx(hsic_cka(x, y))
    assert 0 < linear_cka(x, y) < 1


def test_cka_does_not_see_rotation_scale_and_shift() -> None:
    x = features(2)
    rotation, _ = np.linalg.qr(features(3, 12, 12))
    assert linear_cka(x, 7 * x @ rotation + 5) == pytest.approx(1)
    stretched = x * np.r_[100, np.ones(11)]
    assert linear_cka(x, stretched) < 0.9


def test_cka_of_unrelated_columns_is_zero() -> None:
    # centred and orthogonal columns
    assert linear_cka([[1], [1], [-1], [-1]], [[1], [-1], [1], [-1]]) == pytest.approx(0)


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-4, 0.5, np.pi / 2 - 1e-10, np.pi / 2])
def test_angle_between_two_lines(angle: float) -> None:
    found = principal_angles([[1, 0, 0]], [[np.cos(angle), np.sin(angle), 0]])
    assert found.tolist() == pytest.approx([angle], abs=1e-14)


@pytest.mark.parametrize(("n1", "n2"), [(3, 3), (5, 2), (2, 5), (30, 4)])
def test_angles_agree_with_scipy(n1: int, n2: int) -> None:
    a, b = features(4, n1), features(5, n2)
    expected = np.sort(subspace_angles(a.T, b.T))
    assert principal_angles(a, b) == pytest.approx(expected, abs=1e-7)


def test_leading_directions_are_compared_when_a_rank_is_given() -> None:
    rng = np.random.default_rng(6)
    strong, weak = np.eye(12)[:2], np.eye(12)[2:]
    a = 10 * rng.normal(size=(50, 2)) @ strong + 1e-9 * rng.normal(size=(50, 10)) @ weak
    b = 10 * rng.normal(size=(50, 2)) @ strong[::-1] + 1e-9 * rng.normal(size=(50, 10)) @ weak
    assert principal_angles(a, b, rank=2) == pytest.approx([0, 0], abs=1e-7)
    assert principal_angles(a, weak, rank=2) == pytest.approx([np.pi / 2] * 2, abs=1e-7)


def test_repeated_rows_do_not_add_dimensions() -> None:
    a = features(7, 2)
    assert principal_angles(np.concatenate([a, a, a[:1] + a[1:]]), a) == pytest.approx([0, 0], abs=1e-7)


def test_similarities_refuse() -> None:
    with pytest.raises(DataError, match="first has 3 rows, second 2"):
        linear_cka(features(0, 3), features(0, 2))
    with pytest.raises(DataError, match="second has the same features in all 3 rows"):
        linear_cka(features(0, 3, 2), [[0.1, 0.2]] * 3)
    with pytest.raises(DataError, match="first has 12 features, second 11"):
        principal_angles(features(0), features(0, 40, 11))
    with pytest.raises(DataError, match="second holds only zeros"):
        principal_angles([[1, 0]], [[0, 0]])
    with pytest.raises(ConfigError, match="rank is 3; second has numerical rank 2, so 1 to 2 is accepted"):
        principal_angles(features(0), features(1, 2), rank=3)
    with pytest.raises(DataError, match=r"first\[0, 1\] = nan is missing"):
        principal_angles([[1, float("nan")]], [[1, 0]])


def test_chance_levels_are_what_unrelated_features_score() -> None:
    x, y = features(8, 20, 60), features(9, 20, 60)
    assert linear_cka(x, y) > 0.5  # far above 0, though nothing is shared
    assert linear_cka(x, y) == pytest.approx(chance_cka(x, y), abs=0.08)
    assert chance_cka(x, x) < 0.9
    assert chance_cka(x, y, seed=3) == chance_cka(x, y, seed=3)
    with pytest.raises(ConfigError, match="n_shuffles is 0"):
        chance_cka(x, y, n_shuffles=0)


def test_random_lines_in_the_plane_are_45_degrees_apart_on_average() -> None:
    assert np.degrees(chance_principal_angles(2, 1, 1, n_draws=4000)) == pytest.approx([45], abs=1.5)
    assert np.degrees(chance_principal_angles(400, 1, 1)) == pytest.approx([87], abs=3)  # nearly orthogonal
    assert len(chance_principal_angles(9, 4, 2)) == 2
    for size, first, second in [(3, 4, 1), (3, 0, 1)]:
        with pytest.raises(ConfigError, match="subspaces of"):
            chance_principal_angles(size, first, second)
