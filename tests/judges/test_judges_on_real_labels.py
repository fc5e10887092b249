"""Floors under the agreement of fitted judges with published labels; the figures themselves are in reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from real_data import real_data

pytest.importorskip("sklearn")

from mocae.judges.learned.classifier import ClassifierJudge
from mocae.judges.learned.safety import fit_safety_classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fit", "file", "floor"),
    [
        (fit_safety_classifier, "beavertails/labelled.jsonl.xz", 0.77),
    ],
)
def test_auroc_on_unseen_prompts(fit: Callable[[Path], ClassifierJudge], file: str, floor: float) -> None:
    quality = fit(real_data(file)).quality
    assert quality is not None
    assert quality.auroc is not None
    assert quality.auroc >= floor
