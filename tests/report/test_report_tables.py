from __future__ import annotations

from typing import Any

import pytest

from mocae.report.schema import sorted_systems
from mocae.report.tables import (
    Table,
    forgetting_table,
    format_bytes,
    format_count,
    format_estimate,
    kinds_table,
    routing_table,
    seconds_cell,
    systems_table,
    updates_table,
)
from mocae.types import Estimate
from report_for_tests import estimate, make_report


@pytest.mark.parametrize(
    ("estimate", "unit", "text"),
    [
        (Estimate(0.942, 0.918, 0.961, 500), "percent", "94.2 % [91.8, 96.1]"),
        (Estimate(1.0), "percent", "100.0 %"),
        (Estimate(None, None, None, 0), "percent", "\u2013"),
        (Estimate(0.5, 0.4, None), "percent", "50.0 %"),
        (Estimate(-0.01, -0.03, 0.01), "difference", "\u22121.0 points [\u22123.0, +1.0]"),
        (Estimate(-0.00001), "difference", "0.0 points"),
        (Estimate(0.98, 0.9, 1.0), "points", "98.0 points [90.0, 100.0]"),
        (Estimate(0.0314), "number", "0.031"),
    ],
)
def test_format_estimate(estimate: Estimate, unit: Any, text: str) -> None:
    assert format_estimate(estimate, unit) == text


def test_counts_and_sizes() -> None:
    assert format_count(2_900_000) == "2\u202f900\u202f000"
    assert format_count(None) == "\u2013"
    assert [format_bytes(v) for v in (None, 12, 4_100_000, 1_530_000_000)] == ["\u2013", "12 B", "4.1 MB", "1.53 GB"]


def test_best_is_marked_by_the_direction_of_the_column_and_never_an_upper_bound(report: dict[str, Any]) -> None:
    table = systems_table(report)
    labels = [(c.group, c.label, c.arrow) for c in table.columns]
    assert [row.name for row in table.rows] == ["oracle", "alignx", "joint", "base", "expert:helpfulness"]
    best = {label: [row.name for row in table.rows if row.cells[i].best] for i, label in enumerate(labels)}
    assert best["all axes", "mean of the axes", "↑"] == ["alignx"]
    assert best["harmlessness", "unsafe", "↓"] == ["alignx", "joint"]  # a tie is a tie
    assert best["harmlessness", "over-refusal", "↓"] == ["expert:helpfulness"]
    assert table.rows[0].upper_bound


def test_a_metric_equal_to_the_score_has_no_second_column(report: dict[str, Any]) -> None:
    assert "pass rate" not in [c.label for c in systems_table(report).columns]
    report["systems"]["base"]["honesty"]["pass_rate"] = 0.123
    assert [c.group for c in systems_table(report).columns if c.label == "pass rate"] == ["honesty"]


def test_an_unknown_metric_is_shown_without_a_claim_of_direction(report: dict[str, Any]) -> None:
    report["systems"]["base"]["honesty"]["odd_share"] = 0.25
    table = systems_table(report)
    at = [c.label for c in table.columns].index("odd share")
    assert table.columns[at].arrow == ""
    texts = {row.name: row.cells[at].text for row in table.rows}
    assert texts["base"] == "25.0 %"
    assert texts["joint"] == "\u2013"


def test_groups_span_their_columns() -> None:
    table = systems_table(make_report(["honesty"]))
    assert sum(span for _, span in table.groups()) == len(table.columns)
    assert [group for group, _ in table.groups()] == ["all axes", "honesty", "papers"]


def test_routing_and_kinds(report: dict[str, Any]) -> None:
    routing, kinds = routing_table(report), kinds_table(report)
    assert routing is not None
    assert kinds is not None
    assert [cell.text for cell in routing.rows[0].cells] == ["10.0 %", "0.080", "3.0 %", "\u22121.0 points", "0.400"]
    assert [c.label for c in kinds.columns] == ["repeat", "look alike"]
    assert kinds.rows[0].cells[1].text == "\u2013"


def test_absent_parts_make_no_table(report: dict[str, Any]) -> None:
    report["routing"] = None
    for system in report["systems"].values():
        del system["kinds"]
    assert routing_table(report) is None
    assert kinds_table(report) is None


def test_forgetting_is_a_size_without_sign(report: dict[str, Any]) -> None:
    losses = {"helpfulness": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9}, "honesty": -0.1, "harmlessness": None}
    report["forgetting"] = {"forgetting": losses, "matrix": [[0.9, 0.5, 0.2], [0.2, 0.4, 0.3]]}
    table = forgetting_table(report)
    assert table is not None
    (row,) = table.rows
    assert [column.label for column in table.columns] == [
        *("helpfulness", "harmlessness", "honesty", "mean loss", "mean score")
    ]
    assert [cell.text for cell in row.cells] == ["70.0 points", "\u2013", "\u221210.0 points", "30.0 points", "30.0 %"]
    assert row.cells[0].interval == "[60.0, 80.0]"


def test_every_order_of_training_has_a_row(report: dict[str, Any]) -> None:
    first = report["forgetting"]
    report["collapse"] = {"orders": {"sequential": first, "sequential back": {**first, "forgetting": {"honesty": 0.2}}}}
    table = forgetting_table(report)
    assert table is not None
    assert [row.name for row in table.rows] == ["sequential", "sequential back"]
    report["collapse"], report["forgetting"] = None, {}
    assert forgetting_table(report) is None


def _updates(report: dict[str, Any]) -> Table | None:
    return updates_table(report.get("updates") or {}, sorted_systems(report), seconds_cell)


def test_what_taking_in_something_new_costs(report: dict[str, Any]) -> None:
    assert _updates(report) is None
    times = {"seconds": 0.5, "cpu_seconds": 0.25, "stages": ["router/alignx"]}
    report["updates"] = {"alignx": {"verdicts": times}, "joint": {"axis": {**times, "seconds": 123.4}}}
    table = _updates(report)
    assert table is not None
    assert [(row.name, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("alignx", ["0.50 s", "0.25 s", "\u2013", "\u2013"]),
        ("joint", ["\u2013", "\u2013", "123 s", "0.25 s"]),
    ]


def test_a_rate_that_happens_to_equal_the_score_keeps_its_column(report: dict[str, Any]) -> None:
    alone = report["systems"]["alignx"]
    report["systems"] = {"base": alone}
    alone["axis_scores"]["helpfulness"] = alone["helpfulness"]["pass_rate"] = estimate(0.0)
    alone["helpfulness"]["win_rate"] = estimate(0.0)
    labels = [column.label for column in systems_table(report).columns if column.group == "helpfulness"]
    assert labels == ["score", "win rate"]
