from __future__ import annotations

import math
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.report.schema import check_report, lookup, read_estimate, sorted_systems
from mocae.types import Estimate


def test_the_full_report_is_accepted(report: dict[str, Any]) -> None:
    check_report(report)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_another_version_is_refused(report: dict[str, Any], version: object) -> None:
    report["schema"] = version
    with pytest.raises(ArtifactError, match=r"schema: (got \d, this version of mocae draws 1|.*valid integer)"):
        check_report(report)


@pytest.mark.parametrize("key", ["name", "seed", "base", "axes"])
def test_a_recipe_without_what_was_measured_is_refused(report: dict[str, Any], key: str) -> None:
    del report["recipe"][key]
    with pytest.raises(ArtifactError, match=rf"recipe\.{key}: Field required"):
        check_report(report)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("systems", {}, "systems: .*at least 1 item"),
        ("systems", None, "systems: .*dictionary"),
        ("routing", [1], "routing: .*dictionary"),
        ("notes", "tiny", "notes: .*"),
        ("judges", [{}], r"judges\.0\.name: Field required"),
        ("examples", [{"axis": "a"}], r"examples\.0\.prompt: Field required"),
        (
            "forgetting",
            {"axes": ["a", "b"], "stages": ["base"], "matrix": [[0.1]]},
            r"rows of \[1\] values, expected 1 rows \(stages\) of 2 \(axes\)",
        ),
    ],
)
def test_a_section_of_the_wrong_shape_is_refused(
    report: dict[str, Any], section: str, value: object, message: str
) -> None:
    report[section] = value
    with pytest.raises(ArtifactError, match=message):
        check_report(report)


def test_no_axes_are_refused(report: dict[str, Any]) -> None:
    report["recipe"]["axes"] = []
    with pytest.raises(ArtifactError, match=r"recipe\.axes: .*at least 1 item"):
        check_report(report)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Estimate(None)),
        (0.5, Estimate(0.5)),
        (1, Estimate(1.0)),
        (math.nan, Estimate(None)),
        ({"value": 0.5, "low": 0.4, "high": None, "n": 3}, Estimate(0.5, 0.4, None, 3)),
        ({"value": None, "low": None, "high": None, "n": 0}, Estimate(None)),
    ],
)
def test_read_estimate(value: object, expected: Estimate) -> None:
    assert read_estimate(value) == expected


@pytest.mark.parametrize("value", ["0.5", True, [0.5]])
def test_read_estimate_refuses_what_is_no_number(value: object) -> None:
    with pytest.raises(ArtifactError, match="where a number, null or"):
        read_estimate(value)


def test_lookup_stops_at_null() -> None:
    assert lookup({"a": {"b": {"c": 1}}}, "a", "b", "c") == 1
    assert lookup({"a": None}, "a", "b") is None
    assert lookup(None, "a") is None


def test_systems_are_sorted_by_mean_with_the_unmeasured_last(report: dict[str, Any]) -> None:
    report["systems"] = {"unmeasured": None, "low": {"mean_axis_score": 0.1}, "high": {"mean_axis_score": 0.9}}
    assert sorted_systems(report) == ["high", "low", "unmeasured"]
