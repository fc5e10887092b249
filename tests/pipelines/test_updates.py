"""What has to be made again, by the stages a system's answers were made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mocae.pipelines.updates import updates
from mocae.stages.store import Stage, Took


def stage(name: str, seconds: float | None, *needs: Stage, axis: str | None = None) -> Stage:
    took = None if seconds is None else Took(seconds, 2 * seconds)
    return Stage(Path(name), name, took, name, needs, axis)


A, B = stage("experts/a", 3.0, axis="a"), stage("experts/b", 5.0, axis="b")
FEATURES, OUTCOMES = stage("features", 1.0, A, B), stage("outcomes", 2.0, A, B)
ROUTER = stage("router/alignx", 0.5, FEATURES, OUTCOMES)
JOINT = stage("comparison/joint", 20.0)
FIRST = stage("comparison/sequential/b", 6.0, axis="b")
FUSED = stage("h3fusion/fused", 1.0, stage("h3fusion/a", 9.0, axis="a"), stage("h3fusion/b", 8.0, axis="b"))


@pytest.mark.parametrize(
    ("needs", "verdicts", "axis"),
    [
        ([A, B, ROUTER], 0.5, 8.5),
        ([A, B, ROUTER, stage("output/alignx", 4.0, ROUTER, OUTCOMES)], 4.5, 12.5),
        ([A, B, stage("router/linear", 0.25, FEATURES)], None, 6.25),  # labels alone
        ([A, B, stage("answers/expert__a", 99.0, A)], None, 5.0),  # answers to test prompts are no part of a system
        ([JOINT], None, 20.0),
        ([stage("comparison/joint_outcomes", 24.0, OUTCOMES)], 24.0, 31.0),
        ([stage("comparison/after", 6.0, OUTCOMES, JOINT)], 6.0, 33.0),
        ([stage("comparison/sequential/b-a", 7.0, FIRST, axis="a")], None, 7.0),
        ([A, B, stage("xlora", 8.0, A, B)], None, 13.0),
        ([FUSED], None, 10.0),
        ([], None, None),
        ([stage("comparison/unknown", None, OUTCOMES)], None, None),
    ],
)
def test_the_stages_that_are_made_again_are_added_up(
    needs: list[Stage], verdicts: float | None, axis: float | None
) -> None:
    costs = updates(stage("answers/it", 50.0, *needs))
    assert costs.get("verdicts", {}).get("seconds") == verdicts
    assert costs.get("axis", {}).get("seconds") == axis
    assert costs.get("axis", {}).get("cpu_seconds") == (None if axis is None else 2 * axis)
