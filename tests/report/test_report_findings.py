from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.report.findings import Finding, find
from mocae.report.schema import check_report
from report_for_tests import difference, estimate, make_report


def _line(report: dict[str, Any], title: str) -> Finding:
    return next(line for line in find(report).lines if line.title == title)


def _shows(report: dict[str, Any], section: str) -> str:
    return find(report).conclusions[section]


def test_the_headline_has_winner_rival_lead_interval_and_prompts(report: dict[str, Any]) -> None:
    assert find(report).headline == (
        "alignx answers best: 94.0 % [92.0, 96.0] acceptably (mean of three axes, n = 100 test prompts; "
        "the base model: 40.0 %), 9.0 points [7.0, 11.0] ahead of its best rival joint (85.0 %)."
    )
    assert find(report).named == (("alignx", "what alignx is"), ("joint", "what joint is"))


def test_a_rival_that_ties_changes_the_headline(report: dict[str, Any]) -> None:
    report["systems"]["knn"] = {**report["systems"]["alignx"], "mean_axis_score": estimate(0.93), "policy": "knn"}
    report["comparisons"]["lead"]["over"]["knn"] = difference(0.01, 0.02)
    headline = find(report).headline
    assert headline == (
        "No winner: alignx (94.0 % acceptable) and knn (93.0 %) cannot be told apart, +1.0 points [\u22121.0, +3.0] "
        "(mean of three axes, n = 100 test prompts; the base model: 40.0 %)."
    )
    assert "tell them apart" in _line(report, "Do next").text
    report["comparisons"]["lead"]["over"]["joint"] = difference(0.01, 0.02)
    assert find(report).headline.endswith(" joint may be as good.")
    for number in range(4):
        report["systems"][f"knn {number}"] = {**report["systems"]["knn"], "mean_axis_score": estimate(0.92)}
        report["comparisons"]["lead"]["over"][f"knn {number}"] = difference(0.02, 0.03)
    assert find(report).headline.endswith(" “knn 0”, “knn 1” and 3 more may be as good.")
    assert len(find(report).named) == 4


def test_a_rival_in_front_is_the_headline_and_the_method_is_behind(report: dict[str, Any]) -> None:
    report["systems"]["knn"] = {**report["systems"]["alignx"], "mean_axis_score": estimate(0.99), "policy": "knn"}
    report["systems"]["joint"]["mean_axis_score"] = estimate(0.97)
    over = {"joint": difference(0.02, 0.01), "alignx": difference(0.05, 0.02)}
    report["comparisons"]["lead"] = {"system": "knn", "over": over}
    headline = find(report).headline
    assert headline.startswith("knn answers best: 99.0 %")
    assert headline.endswith(
        "2.0 points [1.0, 3.0] ahead of its best rival joint (97.0 %). alignx is 5.0 points [3.0, 7.0] behind."
    )
    assert _line(report, "Do next").text.startswith("Use knn")


def test_another_setting_of_the_same_kind_is_no_rival_but_is_told(report: dict[str, Any]) -> None:
    report["systems"]["alignx top-1"] = {**report["systems"]["alignx"], "mean_axis_score": estimate(0.93)}
    assert "best rival joint" in find(report).headline
    assert "alignx is the best of 2 of its kind" in _line(report, "Believe it?").text


@pytest.mark.parametrize("comparisons", [None, {}, {"against": "joint", "differences": {}}])
def test_no_comparison_claims_no_lead(report: dict[str, Any], comparisons: object) -> None:
    report["comparisons"] = comparisons
    assert "so no lead is claimed" in find(report).headline


def test_a_report_of_before_is_read_against_joint_tuning(report: dict[str, Any]) -> None:
    del report["comparisons"]["lead"], report["headroom"]
    for system in report["systems"].values():
        del system["policy"]
    assert "9.0 points [7.0, 11.0] ahead of its best rival joint" in find(report).headline
    assert "Can routing matter? Not known" in _shows(report, "room")
    report["comparisons"]["differences"]["alignx"] = 0.09
    assert "with no interval: how sure that is, is not known" in find(report).headline


def test_the_oracle_never_wins(report: dict[str, Any]) -> None:
    findings = find(report)
    assert "oracle" not in findings.headline
    assert "oracle" not in findings.front


@pytest.mark.parametrize(
    ("value", "half", "answer"), [(0.3, 0.02, "Yes (go)"), (0.06, 0.02, "Perhaps"), (0.03, 0.04, "No (no-go)")]
)
def test_routing_matters_where_the_experts_leave_room(
    report: dict[str, Any], value: float, half: float, answer: str
) -> None:
    report["headroom"]["headroom"] = estimate(value, half, n=90)
    text = _shows(report, "room")
    assert text.startswith(f"Can routing matter? {answer}. The right expert for each of 90 calibration prompts would ")
    assert "would reach 90.0 %, the best one alone (expert:helpfulness) 60.0 %" in text
    assert ("routing cannot matter here" in text) == (value < 0.05)
    assert ("no router" in _line(report, "Do next").text) == (value < 0.05)


def test_whether_to_believe_it_names_the_weakest_judge_and_the_unchecked(report: dict[str, Any]) -> None:
    line = _line(report, "Believe it?")
    assert line.text.startswith("With care: synthetic, tiny model; ")
    assert "the weakest judge (verifier) has a balanced accuracy of 98.0 % on 600 labelled answers" in line.text
    assert "not checked against labelled answers: words" in line.text
    assert "one seed, at least 100 test prompts an axis, which knows its mean to ± 2.0 points" in line.text
    assert line.tone == "open"
    report["judges"], report["notes"] = [{"name": "verifier", "exact": True}], []
    assert _line(report, "Believe it?").text.startswith("Yes: every answer is checked exactly")
    assert _line(report, "Believe it?").tone == "good"
    report["systems"]["alignx"]["axis_scores"]["honesty"] = estimate(0.9, n=49)
    assert _line(report, "Believe it?").text.startswith("With care: ")
    report["judges"] = []
    assert _line(report, "Believe it?").text.startswith("No: no judge is named")


def test_a_judge_that_wrongs_one_answer_in_four_is_read_with_care(report: dict[str, Any]) -> None:
    del report["judges"][1], report["notes"]
    assert _line(report, "Believe it?").text.startswith("Yes: the judge has a balanced accuracy of 98.0 %")
    report["judges"][0]["quality"]["balanced_accuracy"] = 0.75
    assert _line(report, "Believe it?").text.startswith("With care: the judge has a balanced accuracy of 75.0 %")
    report["judges"][0]["audit"] = {"rows": [], "believed": False}
    assert _line(report, "Believe it?").text.startswith("No: a judge that accepts constant answers: verifier")
    assert "Replace the judges" in _line(report, "Do next").text


@pytest.mark.parametrize(
    ("best", "rival", "knn", "says"),
    [
        (True, True, None, "joint (85.0 %); both learned from the same verdicts."),
        (True, False, None, "joint (85.0 %), which saw no verdicts; no rival that did was measured."),
        (
            True,
            False,
            0.2,
            "which saw no verdicts; knn, the best that saw the same, is 20.0 points [19.0, 21.0] behind.",
        ),
        (True, False, 0.005, "joint (85.0 %), which saw no verdicts; knn saw the same and may be as good."),
        (False, True, None, "joint (85.0 %), which learned from verdicts that alignx did not see."),
        (False, False, None, "joint (85.0 %)."),
    ],
)
def test_the_headline_says_who_of_the_two_saw_verdicts_and_names_the_strongest_that_saw_the_same(
    report: dict[str, Any], best: bool, rival: bool, knn: float | None, says: str
) -> None:
    report["systems"]["alignx"]["uses_verdicts"], report["systems"]["joint"]["uses_verdicts"] = best, rival
    if knn is not None:
        report["systems"]["knn"] = {
            **report["systems"]["base"],
            "mean_axis_score": estimate(0.74),
            "policy": "knn",
            "uses_verdicts": True,
        }
        report["comparisons"]["lead"]["over"]["knn"] = difference(knn, 0.01)
    headline = find(report).headline
    assert says.removesuffix(".") in headline
    assert ("No winner" in headline) is False


def test_what_to_beware_of_names_the_conflict_and_who_learned_from_verdicts(report: dict[str, Any]) -> None:
    report["notes"].append("the axes' training data contradict each other by construction")
    report["systems"]["alignx"]["uses_verdicts"] = report["systems"]["oracle"]["uses_verdicts"] = True
    text = _line(report, "Believe it?").text
    assert "synthetic, tiny model; the axes' training data contradict each other by construction" in text
    assert "the judged prompts that alignx learned from are an edge over all others" in text
    report["notes"].append("a warning that explains itself at length " * 3)
    assert "; 1 longer note below, beside the rates of all systems; " in _line(report, "Believe it?").text
    for name in ("a", "b", "c"):
        report["systems"][name] = {**report["systems"]["base"], "policy": name, "uses_verdicts": True}
    assert "that 4 of 8 systems learned from are an edge over all others" in _line(report, "Believe it?").text


def test_alignx_with_one_more_expert_is_no_rival_of_alignx(report: dict[str, Any]) -> None:
    report["systems"]["more"] = {
        **report["systems"]["alignx"],
        "mean_axis_score": estimate(0.96),
        "policy": "alignx_outcomes",
    }
    report["comparisons"]["lead"] = {"system": "more", "over": {"joint": difference(0.11, 0.02)}}
    assert find(report).headline.endswith("11.0 points [9.0, 13.0] ahead of its best rival joint (85.0 %).")


def test_what_it_cost_counts_verdicts_and_seconds(report: dict[str, Any]) -> None:
    report["updates"] = {"alignx": {"all": {"seconds": 40.0}}, "joint": {"all": {"seconds": 20.0}}}
    assert _line(report, "What it cost").text == (
        "270 verdicts (a judge's yes or no) on the experts' answers to 90 prompts; "
        "to make, experts and all: alignx 40.0 s, joint 20.0 s."
    )


def test_a_report_of_before_says_by_its_costs_who_saw_verdicts(report: dict[str, Any]) -> None:
    report["updates"] = {"alignx": {"verdicts": {"seconds": 1.0}}}
    assert (
        "the judged prompts that alignx learned from are an edge over all others; 3 verdicts could not be read"
        in _line(report, "Believe it?").text
    )


def test_forgetting_says_what_collapse_is_and_names_the_axis(report: dict[str, Any]) -> None:
    report["forgetting"]["forgetting"]["honesty"] = difference(0.8, 0.1)
    assert _shows(report, "forgetting") == (
        "Axis collapse (learning one axis unlearns another) shows here: taught helpfulness, then harmlessness, then "
        "honesty, the model lost 80.0 points [70.0, 90.0] of honesty."
    )


def test_forgetting_within_chance_is_not_called_forgetting(report: dict[str, Any]) -> None:
    report["forgetting"]["forgetting"] = {"helpfulness": difference(0.01, 0.03), "honesty": None}
    assert "another) does not show here: taught" in _shows(report, "forgetting")


@pytest.mark.parametrize(("cosine", "then"), [(-0.2, "undo part of each other"), (0.2, "agree"), (0.01, "unrelated")])
def test_overlap_ends_in_a_conclusion(report: dict[str, Any], cosine: float, then: str) -> None:
    pairs = [{"first": "helpfulness", "second": "honesty", "cka": 0.8, "cosine": cosine}]
    report["collapse"] = {"overlap": {"pairs": pairs}}
    assert then in _shows(report, "overlap")
    assert "CKA 0.80 to 0.80; 1 alike, 0 not), so collapse does not show there" in _shows(report, "overlap")
    pairs[0]["cka"] = 0.1
    assert "in different ways (CKA 0.10" in _shows(report, "overlap")


def test_one_axis_is_not_called_a_mean() -> None:
    assert "the one axis, honesty" in find(make_report(["honesty"])).headline


def test_nothing_measured_ranks_nothing(report: dict[str, Any]) -> None:
    report["systems"] = {"base": {"mean_axis_score": estimate(None)}}
    report["forgetting"] = None
    assert find(report).headline == "No system has a mean over the axes, so this run ranks nothing."
    assert set(find(report).conclusions) == set()


def test_a_single_system_is_compared_with_nothing(report: dict[str, Any]) -> None:
    report["systems"] = {"base": report["systems"]["base"]}
    assert find(report).headline == (
        "base answers 40.0 % [38.0, 42.0] acceptably (mean of three axes, n = 100 test prompts)."
    )
    assert "Do next" not in [line.title for line in find(report).lines]
    assert "room" not in find(report).conclusions


def test_the_router_is_plain_alignx_not_its_luckiest_variant(report: dict[str, Any]) -> None:
    report["systems"]["alignx top-1"] = {**report["systems"]["alignx"], "mean_axis_score": estimate(0.97)}
    report["routing"]["alignx top-1"] = {**report["routing"]["alignx"], "ece": estimate(0.01)}
    assert "off by 10.0 points" in _shows(report, "calibration")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _paths(below, (*path, key))


@pytest.mark.parametrize("spoilt", ["x", -1.5, ["a"]], ids=str)
def test_any_spoilt_value_of_a_report_is_read_or_refused_in_our_words(report: dict[str, Any], spoilt: object) -> None:
    refused = 0
    for *way, last in list(_paths(report)):
        place = changed = copy.deepcopy(report)
        for key in way:
            place = place[key]
        place[last] = spoilt
        try:
            check_report(changed)
        except ArtifactError:
            refused += 1
            continue
        with contextlib.suppress(ArtifactError):
            find(changed)
    assert refused
