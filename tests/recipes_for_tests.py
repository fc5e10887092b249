"""A small valid recipe as plain values, for tests that change one thing in it."""

from __future__ import annotations

from typing import Any

__all__ = ["small_recipe"]


def small_recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe over the pocket world with two axes, top-level keys replaced by `changes`."""
    values: dict[str, Any] = {
        "name": "small",
        "base": {"model": "pocket"},
        "prompt_format": "plain",
        "axes": [
            {
                "name": axis,
                "injection": "",
                "train": {"source": "pocket", "options": {"split": "train", "n": 20}},
                "calibration": {"source": "pocket", "options": {"split": "calibration", "n": 50}},
                "test": {"source": "pocket", "options": {"split": "test", "n": 50}},
            }
            for axis in ("helpfulness", "honesty")
        ],
        "judges": [{"judge": "pocket"}],
        "systems": ["base", "expert:honesty", "alignx"],
    }
    return values | changes
