from __future__ import annotations

import pytest

from mocae.cli.tables import si


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (1000, "B", "1 kB"),
        (6_738_415_616, "", "6.74 G"),
        (1.04e18, "", "1.04 E"),
        (None, "B", "unknown"),
    ],
)
def test_si(number: float | None, unit: str, text: str) -> None:
    assert si(number, unit) == text
