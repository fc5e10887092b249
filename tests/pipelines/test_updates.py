"""What has to be made again, by the names of the stages a run made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mocae.config import SystemConfig
from mocae.pipelines.store import Stage, Took
from mocae.pipelines.updates import updates

AXES = ("a", "b")
SECONDS = {
    "experts/a": 3.0,
    "experts/b": 5.0,
    "features": 1.0,
    "outcomes": 2.0,
    "router/alignx": 0.5,
    "router/calibrated": 0.5,
    "output/calibrated": 4.0,
    "comparison/joint": 20.0,
    "comparison/joint_outcomes": 24.0,
    "comparison/after": 6.0,
    "comparison/sequential/b-a": 7.0,
    "xlora/xlora": 8.0,
    "h3fusion/experts/a": 9.0,
    "h3fusion/experts/b": 8.0,
    "h3fusion/fused/h3fusion": 1.0,
}


@pytest.mark.parametrize(
    ("system", "verdicts", "axis"),
    [
        ("alignx", 0.5, 8.5),
        ({"name": "calibrated", "policy": "alignx"}, 4.5, 12.5),
        ("joint", None, 20.0),
        ("joint_outcomes", 24.0, 31.0),
        ({"name": "after", "policy": "joint_outcomes", "options": {"schedule": "after"}}, 6.0, 33.0),
        ({"name": "s", "policy": "sequential", "options": {"order": ["b", "a"]}}, None, 7.0),
        ("xlora", None, 13.0),
        ("arrow", None, 5.0),
        ("h3fusion", None, 10.0),
        ("prompt_only", None, None),
        ({"name": "not made", "policy": "joint_outcomes"}, None, None),
    ],
)
def test_the_stages_that_are_made_again_are_added_up(system: Any, verdicts: float | None, axis: float | None) -> None:
    stages = {name: Stage(Path(name), name, Took(s, 2 * s)) for name, s in SECONDS.items()}
    found = updates(SystemConfig.model_validate(system), stages, AXES, AXES)
    assert found.get("verdicts", {}).get("seconds") == verdicts
    assert found.get("axis", {}).get("seconds") == axis
    assert found.get("axis", {}).get("cpu_seconds") == (None if axis is None else 2 * axis)
