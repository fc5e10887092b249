"""What a variant changes, told with the values both systems run with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mocae.config import Recipe, load_recipe
from mocae.pipelines.ablation.parts import parts_of

RECIPE = Path(__file__).parents[2] / "recipes" / "pocket-ablation.yaml"


def _changed(recipe: Recipe) -> dict[str, dict[str, tuple[Any, Any]]]:
    return {part.system: part.changed for part in parts_of(recipe)}


def test_defaults_are_told_as_what_they_are() -> None:
    found = _changed(load_recipe(RECIPE))
    assert found["trinityx without GL and RL"]["gating"] == (0.01, 0.0)
    assert found["joint outcomes alone"] == {"schedule": ("mixed", "alone")}
    assert found["alignx mixing all"] == {"top_k": (1, None)}
    assert found["alignx without fractal"] == {"routing.calibrators.fractal_weight": (0.6, 0.0)}
    last = ["harmlessness", "honesty", "helpfulness"]
    assert found["sequential helpfulness last"]["order"][1] == last


@pytest.mark.parametrize(("value", "told"), [("0.3", (0.3, 0.0)), ("0", None)])
def test_what_changed_is_read_off_the_swept_recipe(value: str, told: tuple[float, float] | None) -> None:
    found = _changed(load_recipe(RECIPE, [f"routing.calibrators.fractal_weight={value}"]))
    assert found["alignx without fractal"].get("routing.calibrators.fractal_weight") == told
