"""How sure a router is of a kind of prompt that was left out of its calibration."""

from __future__ import annotations

import pytest

from mocae.pipelines.ablation.left_out import measure_left_out
from mocae.types import Answer, Example, Sample, Verdict


def sample(probe: str, right: bool | None, confidence: float | None, novelty: float | None) -> Sample:
    example = Example(f"{probe} {right} {confidence} {novelty}", "a", probe)
    answer = Answer(example, "said", {"a": 1.0}, confidence=confidence, novelty=novelty)
    return Sample("alignx", answer, {"correct": Verdict(None if right is None else float(right))}, right)


def test_a_case_worked_by_hand() -> None:
    samples = [
        sample("task", True, 0.75, 0.2),
        sample("task", True, 0.75, 0.9),
        sample("benign", False, 0.5, 0.5),
        sample("benign", None, 0.5, 0.5),  # not judged: it does not count
    ]
    assert measure_left_out(samples, ["task"]) == {
        "right": 1.0,
        "confidence": 0.75,
        "ece": pytest.approx(0.25),
        "known_ece": pytest.approx(0.5),
        "auroc": 0.5,
    }
    assert measure_left_out(samples, ["question"])["auroc"] is None
    assert measure_left_out(samples, ["task", "benign"])["known_ece"] is None
