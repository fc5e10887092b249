import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mocae.metrics import holm, p_value
from mocae.types import Estimate


def test_the_p_value_of_a_normal_interval_is_that_of_the_z_test() -> None:
    for z in (0.3, 1.0, 1.96, 4.0):
        found = p_value(Estimate(-z, -z - 1.959964, -z + 1.959964))
        assert found == pytest.approx(2 * stats.norm.sf(z), rel=1e-5)


def test_it_is_below_5_percent_exactly_where_the_interval_leaves_0_out() -> None:
    assert (p_value(Estimate(0.1, 0.001, 0.9)) or 0) < 0.05 < (p_value(Estimate(0.1, -0.001, 0.101)) or 0)
    assert p_value(Estimate(0.0, -1.0, 1.0)) == 1.0
    assert p_value(Estimate(0.2, 0.2, 0.2)) == 0.0
    assert p_value(Estimate(0.2)) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_steps_down(p_values: list[float]) -> None:
    order, m = np.argsort(p_values, kind="stable"), len(p_values)
    running, expected = 0.0, [0.0] * m
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p_values[i]))
        expected[i] = running
    assert holm(p_values) == pytest.approx(expected)


def test_what_has_no_p_value_does_not_count() -> None:
    assert holm([None, 0.04, None]) == [None, 0.04, None]
