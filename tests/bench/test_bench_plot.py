"""The figure of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocae.bench import Benchmark, Row
from mocae.bench.plot import draw
from mocae.errors import ConfigError


def _result() -> Benchmark:
    rows = tuple(
        Row(s, batch, ratio, 1.0, ratio, 1.1, 1.0, 40.0, 0.01, 3, 1000, 2.0, "")
        for batch in (1, 8)
        for s, ratio in (("base", 1.0), ("stacked", 1.12), ("peft-xlora", 40.0))
    )
    return Benchmark({"device": "test"}, {"config": "tiny"}, rows)


def test_bars_are_labelled_with_their_ratios(tmp_path: Path) -> None:
    text = draw(_result(), tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert all(told in text for told in ("stacked", "1.12", "batch 8", "40.00"))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot draw '\.gif'\. Accepted: \.svg, \.png, \.pdf"):
        draw(_result(), tmp_path / "figure.gif")
