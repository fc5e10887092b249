from __future__ import annotations

from typing import Any

import pytest

from mocae.report.findings import Finding, find
from report_for_tests import difference, estimate, make_report


def _titled(report: dict[str, Any], title: str) -> Finding:
    return next(found for found in find(report).details if found.title.startswith(title))


def test_a_lead_whose_interval_excludes_zero_is_called_ahead(report: dict[str, Any]) -> None:
    assert find(report).headline == (
        "On the mean of the three axes, alignx scores highest: 94.0 % [92.0, 96.0]. "
        "It is 9.0 points [7.0, 11.0] ahead of joint tuning."
    )
    assert _titled(report, "alignx against").tone == "good"


def test_a_lead_whose_interval_holds_zero_is_no_lead(report: dict[str, Any]) -> None:
    report["comparisons"]["differences"]["alignx"] = difference(0.01, 0.02)
    assert "It cannot be told apart from joint tuning" in find(report).headline
    assert "ahead" not in find(report).headline
    assert _titled(report, "alignx against").tone == "open"


def test_joint_tuning_in_front_is_said_and_the_router_is_called_behind(report: dict[str, Any]) -> None:
    report["systems"]["joint"]["mean_axis_score"] = estimate(0.96)
    report["comparisons"]["differences"]["alignx"] = difference(-0.05, 0.02)
    assert find(report).headline.endswith(
        "joint scores highest: 96.0 % [94.0, 98.0]. No other system came out ahead of it."
    )
    router = _titled(report, "alignx against")
    assert router.tone == "bad"
    assert "It is 5.0 points [3.0, 7.0] behind joint tuning." in router.text


def test_a_difference_without_interval_is_not_called_certain(report: dict[str, Any]) -> None:
    report["comparisons"]["differences"]["alignx"] = 0.09
    assert "with no interval: how sure that is, is not known" in find(report).headline


@pytest.mark.parametrize("comparisons", [None, {}, {"against": "joint", "differences": {}}])
def test_no_comparison_claims_no_lead(report: dict[str, Any], comparisons: object) -> None:
    report["comparisons"] = comparisons
    assert "so no lead is claimed" in find(report).headline


def test_the_oracle_is_a_ceiling_not_the_winner(report: dict[str, Any]) -> None:
    assert "oracle" not in find(report).headline
    assert _titled(report, "Ceiling").number == "98.0 %"


def test_overlap_with_the_runner_up_is_told(report: dict[str, Any]) -> None:
    assert "Its interval lies below" in _titled(report, "Runner-up").text
    report["systems"]["joint"]["mean_axis_score"] = estimate(0.93)
    assert "may still tell the two apart" in _titled(report, "Runner-up").text


def test_forgetting_names_the_axis_and_reads_the_matrix(report: dict[str, Any]) -> None:
    report["forgetting"]["forgetting"]["honesty"] = difference(0.8, 0.1)
    found = _titled(report, "Sequential")
    assert found.number == "80.0 points"
    assert (
        "lost 80.0 points [70.0, 90.0] of honesty: from 90.0 % at its best (stage helpfulness) to 20.0 %." in found.text
    )


def test_forgetting_within_chance_is_not_called_forgetting(report: dict[str, Any]) -> None:
    report["forgetting"]["forgetting"] = {"helpfulness": difference(0.01, 0.03), "honesty": None}
    found = _titled(report, "Sequential")
    assert (found.number, found.tone) == ("nothing certain", "open")


def test_one_axis_is_not_called_a_mean() -> None:
    assert find(make_report(["honesty"])).headline.startswith("On the one axis (honesty), alignx scores highest")


def test_nothing_measured_ranks_nothing(report: dict[str, Any]) -> None:
    report["systems"] = {"base": {"mean_axis_score": estimate(None)}}
    report["forgetting"] = None
    assert find(report).headline == "No system has a mean over the axes, so this run ranks nothing."
    assert find(report).details == ()


def test_a_single_system_is_compared_with_nothing(report: dict[str, Any]) -> None:
    report["systems"] = {"base": report["systems"]["base"]}
    assert find(report).headline == "On the mean of the three axes, base scores 40.0 % [38.0, 42.0]."


def test_the_router_is_plain_alignx_not_its_luckiest_variant(report: dict[str, Any]) -> None:
    report["systems"]["alignx top-1"] = {**report["systems"]["alignx"], "mean_axis_score": estimate(0.97)}
    report["routing"]["alignx top-1"] = {**report["routing"]["alignx"], "ece": estimate(0.01)}
    report["comparisons"]["differences"]["alignx top-1"] = difference(0.2, 0.02)
    assert _titled(report, "alignx against").number == "+9.0 points"
    assert _titled(report, "Calibration").number == "10.0 %"
    for section in (report["systems"], report["routing"]):
        section["another"] = section.pop("alignx")
    told = _titled(report, "alignx top-1 against").text
    assert "chosen on the prompts it is scored on" in told
