"""Several comparisons side by side: with twenty, one looks like a difference by chance alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from mocae.types import Estimate

__all__ = ["holm", "p_value"]


def p_value(difference: Estimate, *, confidence: float = 0.95) -> float | None:
    """Return the two-sided p-value of "no difference" that an interval implies; None without an interval.

    The normal distribution whose quantile is the end of the interval that faces 0, so that p < 1 - confidence exactly
    where the interval leaves 0 out.

    Reference: Altman and Bland, *How to obtain the P value from a confidence interval*, BMJ 343:d2304, 2011.
    Deviation: they halve the width of the interval; bootstrap intervals are not symmetric.

    >>> round(p_value(Estimate(2.0, 0.0, 5.0)), 3)
    0.05
    """
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return None
    if value == 0:
        return 1.0
    reach = value - low if value > 0 else high - value
    if reach <= 0:
        return 0.0
    normal = NormalDist()
    return 2 * normal.cdf(-abs(value) / reach * normal.inv_cdf((1 + confidence) / 2))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted for all of them standing side by side; None stays None and does not count.

    Reference: Holm, *A simple sequentially rejective multiple test procedure*, 1979.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted
