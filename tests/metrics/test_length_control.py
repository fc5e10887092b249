from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from mocae.errors import DataError
from mocae.metrics import length_controlled_win_rate


def judged(
    n: int = 400, *, skill: float = -1.0, bias: float = 2.0, more: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return preferences in [1, 2], lengths of the system and of the reference from the model itself."""
    draw = np.random.default_rng(0)
    theirs, mine = draw.integers(100, 900, n), more + draw.integers(100, 900, n)
    gap = (mine - theirs).astype(float)
    probs = 1 / (1 + np.exp(-(skill + bias * np.tanh(gap / gap.std()))))
    return 1 + probs, mine, theirs


def test_is_the_minimum_of_the_loss_in_the_docstring() -> None:
    preferences, mine, theirs = judged()
    gap = (mine - theirs).astype(float)
    x, y = np.tanh(gap / gap.std()), preferences - 1

    def loss(beta: np.ndarray) -> float:
        logits = beta[0] + beta[1] * x
        return float(np.logaddexp(0, logits).sum() - y @ logits + 0.5 * beta[1] ** 2)

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    found = length_controlled_win_rate(preferences, mine, theirs)
    assert found.value == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-6)
    assert found.length_effect == pytest.approx(best[1], abs=1e-5)


def test_finds_the_rate_at_equal_length_that_the_plain_rate_misses() -> None:
    preferences, mine, theirs = judged(n=4000, more=500)
    found = length_controlled_win_rate(preferences, mine, theirs)
    assert preferences.mean() - 1 > 0.5
    assert found.value == pytest.approx(1 / (1 + np.e), abs=0.01)


def test_the_standard_error_is_that_of_resampling() -> None:
    preferences, mine, theirs = judged(n=500)
    draw = np.random.default_rng(1)
    preferences = 1.0 + (draw.random(500) < preferences - 1)
    rows = [draw.integers(0, 500, 500) for _ in range(300)]
    resampled = [length_controlled_win_rate(preferences[r], mine[r], theirs[r]).value for r in rows]
    found = length_controlled_win_rate(preferences, mine, theirs)
    assert found.standard_error == pytest.approx(np.std(resampled), rel=0.15)


def test_unscored_rows_count_and_change_nothing() -> None:
    preferences, mine, theirs = judged(n=50)
    plain = length_controlled_win_rate(preferences, mine, theirs)
    more = length_controlled_win_rate([*preferences, None], [*mine, 5], [*theirs, 10**6])
    assert (more.n, more.n_unscored) == (50, 1)
    assert more.value == plain.value


@pytest.mark.parametrize(("preference", "value"), [(1, 0.0), (2, 1.0)])
def test_all_lost_or_all_won_is_the_limit(preference: int, value: float) -> None:
    assert length_controlled_win_rate([preference] * 3, [1, 2, 3], [3, 2, 1]).value == value


def test_no_scored_row_gives_no_number() -> None:
    found = length_controlled_win_rate([None], [1], [2])
    assert (found.value, found.n, found.n_unscored) == (None, 0, 1)


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"system_lengths\[1\] is -2"):
        length_controlled_win_rate([1, 2], [1, -2], [1, 1])
    with pytest.raises(DataError, match="rows do not match"):
        length_controlled_win_rate([1, 2], [1], [1, 1])
