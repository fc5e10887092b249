"""What a choice among experts can win, against cases worked by hand."""

from __future__ import annotations

import pytest

from mocae.evaluation import Bootstrap, headroom
from mocae.types import Answer, Example, Sample, Verdict

BOOT = Bootstrap(n_resamples=200)


def judged(system: str, axis: str, verdicts: str, *, group: str = "", probe: str = "task") -> list[Sample]:
    """One sample a letter: "y" acceptable, "n" not, "?" unscored."""
    known = {"y": True, "n": False, "?": None}
    return [
        Sample(
            system, Answer(Example(f"{axis} {probe} {i}", axis, probe, group=group), ""), {"x": Verdict(1.0)}, known[v]
        )
        for i, v in enumerate(verdicts)
    ]


def test_the_oracle_minus_the_best_expert_with_axes_alike() -> None:
    experts = {
        "expert:a": [*judged("expert:a", "a", "yyyn"), *judged("expert:a", "b", "nn")],
        "expert:b": [*judged("expert:b", "a", "nnny"), *judged("expert:b", "b", "yn")],
    }
    found = headroom(experts, ["a", "b"], boot=BOOT)
    assert found is not None
    # Oracle: a 4/4, b 1/2, mean 0.75. Expert a: 3/4 and 0, mean 0.375; expert b: 1/4 and 1/2, also 0.375.
    assert (found["oracle"], found["best"], found["best_system"]) == (0.75, 0.375, "expert:a")
    assert found["headroom"]["value"] == pytest.approx(0.375)
    assert found["headroom"]["n"] == 6
    assert 0 <= found["headroom"]["low"] <= 0.375 <= found["headroom"]["high"]


def test_only_prompts_with_all_verdicts_count_and_probes_of_an_axis_weigh_alike() -> None:
    experts = {
        "one": [*judged("one", "a", "yn?n"), *judged("one", "a", "y", probe="harmful")],
        "two": [*judged("two", "a", "ny?y"), *judged("two", "a", "n", probe="harmful")],
    }
    found = headroom(experts, ["a"], boot=BOOT)
    assert found is not None
    # Tasks scored by both: 0, 1 and 3. Oracle (3/3 + 1/1) / 2 = 1; one (1/3 + 1) / 2 = 2/3; two (2/3 + 0) / 2 = 1/3.
    assert found["headroom"]["n"] == 4
    assert found["headroom"]["value"] == pytest.approx(1 / 3)
    assert found["best_system"] == "one"


def test_groups_are_resampled_whole_and_one_group_has_no_interval() -> None:
    experts = {name: judged(name, "a", verdicts, group="one fact") for name, verdicts in (("one", "yn"), ("two", "ny"))}
    found = headroom(experts, ["a"], boot=BOOT)
    assert found is not None
    assert (found["headroom"]["value"], found["headroom"]["low"]) == (0.5, None)


def test_experts_that_agree_leave_nothing_but_what_was_not_seen() -> None:
    found = headroom({name: judged(name, "a", "yn" * 20) for name in ("one", "two")}, ["a"], boot=BOOT)
    assert found is not None
    assert (found["headroom"]["value"], found["headroom"]["low"]) == (0.0, 0.0)
    assert 0 < found["headroom"]["high"] < 0.1


def test_nothing_judged_by_all_has_no_headroom() -> None:
    assert headroom({"one": judged("one", "a", "?"), "two": judged("two", "a", "y")}, ["a"], boot=BOOT) is None
