from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mocae.errors import DataError
from mocae.metrics import expected_calibration_error, misrouted, regret, routing_entropy, top_confidence


def world(seed: int = 0, n: int = 60, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), size=n), rng.random((n, k)) < 0.4


def test_misrouted_agrees_with_a_loop() -> None:
    alpha, outcomes = world()
    expected = []
    for weights, acceptable in zip(alpha.tolist(), outcomes.tolist(), strict=True):
        top = weights.index(max(weights))
        expected.append(any(acceptable) and not acceptable[top])
    assert misrouted(alpha, outcomes).tolist() == expected
    assert 0 < sum(expected) < 60


def test_nobody_is_misrouted_by_the_oracle_or_where_all_fail() -> None:
    _, outcomes = world(1)
    assert not misrouted(outcomes.astype(float), outcomes).any()
    assert not misrouted([[1, 0]], [[0, 0]]).any()
    assert misrouted([[0.5, 0.5]], [[0, 1]]).all()  # a tie goes to the first expert
    assert misrouted([[-1.0, 2.0]], [[1, 0]]).all()  # weights of a policy need not be a distribution


def test_regret_is_the_distance_to_the_oracle() -> None:
    _, outcomes = world(2)
    system = np.random.default_rng(3).random(60) < 0.5
    expected = [float(any(row)) - float(s) for row, s in zip(outcomes.tolist(), system.tolist(), strict=True)]
    assert regret(outcomes, system).tolist() == expected
    oracle = outcomes.any(axis=1)
    assert regret(outcomes, system).mean() == pytest.approx(oracle.mean() - system.mean())
    assert not regret(outcomes, oracle).any()


def test_choosing_the_top_expert_regrets_exactly_the_misrouted_rows() -> None:
    alpha, outcomes = world(4)
    chosen = top_confidence(alpha, outcomes).outcome
    assert (regret(outcomes, chosen) == misrouted(alpha, outcomes)).all()


def test_entropy_agrees_with_scipy() -> None:
    alpha, _ = world(5)
    assert routing_entropy(alpha) == pytest.approx(stats.entropy(alpha, axis=1))
    assert routing_entropy(alpha, normalised=True) == pytest.approx(stats.entropy(alpha, axis=1) / np.log(4))


def test_entropy_at_its_ends() -> None:
    assert routing_entropy([[0.25] * 4, [0, 1, 0, 0]]).tolist() == pytest.approx([np.log(4), 0])
    assert routing_entropy([[0.25] * 4, [0, 1, 0, 0]], normalised=True).tolist() == pytest.approx([1, 0])
    assert str(routing_entropy([[0, 1]])[0]) == "0.0"
    assert routing_entropy([[1.0]], normalised=True).tolist() == [0.0]


def test_top_confidence_by_hand() -> None:
    alpha, outcomes = [[0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.6, 0.4]], [[1, 0], [0, 1], [1, 1], [0, 1]]
    top = top_confidence(alpha, outcomes)
    assert top.confidence.tolist() == [0.8, 0.7, 0.6, 0.6]
    assert top.outcome.tolist() == [True, True, True, False]
    assert expected_calibration_error(*top, n_bins=1) == pytest.approx(abs(2.7 / 4 - 3 / 4))


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"alpha has shape \(1, 2\), outcomes \(1, 3\)"):
        misrouted([[0.5, 0.5]], [[1, 0, 0]])
    with pytest.raises(DataError, match=r"outcomes\[0, 1\] = 0.5 must be True / False"):
        misrouted([[0.5, 0.5]], [[1, 0.5]])
    with pytest.raises(DataError, match=r"outcomes\[0, 1\] = nan is missing"):
        top_confidence([[0.5, 0.5]], [[1, None]])
    with pytest.raises(DataError, match=r"alpha\[0, 0\] = 1.5 must lie in \[0, 1\]"):
        top_confidence([[1.5, 0.5]], [[1, 0]])
    with pytest.raises(DataError, match=r"alpha\[1\] sums to 0; each row must sum to 1"):
        routing_entropy([[0.5, 0.5], [0, 0]])
    with pytest.raises(DataError, match="outcomes has 1 rows, system_outcomes 2"):
        regret([[1, 0]], [1, 0])
    with pytest.raises(DataError, match=r"outcomes has shape \(2,\); 2 dimension"):
        regret([1, 0], [1, 0])
    with pytest.raises(DataError, match="alpha is empty"):
        routing_entropy([])
