"""Audits of judges in the report: what is printed, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.judges import AuditRow, JudgeAudit
from mocae.report.card import card_text
from mocae.report.html import html_page
from mocae.report.judges import constants_table, judge_rows
from report_for_tests import make_report


def audited(accepted: float) -> dict[str, Any]:
    report = make_report(["helpfulness", "honesty"])
    row = AuditRow("not knowing", "informative", True, 50, accepted)
    report["judges"][0]["audit"] = asdict(JudgeAudit((row,), not row.fails))
    report["constants"] = [
        {"axis": "honesty", "probe": "question", "constant": "empty", "n": 50, "acceptable": 0.25},
        {"axis": "helpfulness", "probe": "task", "constant": "not knowing", "n": 50, "acceptable": 0.0},
    ]
    return report


def test_a_judge_that_fails_is_marked_wherever_it_is_cited() -> None:
    failed, sound = audited(0.4), audited(0.1)
    first, second = judge_rows(failed)
    assert first.short.startswith("not to be believed; balanced accuracy 98")
    assert first.trust == "not to be believed: not knowing: informative on 40% of 50 prompts"
    assert (second.trust, second.audit) == ("", None)
    assert "not to be believed" not in judge_rows(sound)[0].short
    page = html_page(failed)
    assert "not to be believed: not knowing: informative on 40% of 50 prompts" in page
    assert "(fails)" in page
    assert "not to be believed" in card_text(failed)
    assert "not to be believed" not in html_page(sound) + card_text(sound)


def test_what_constants_reach_is_a_table() -> None:
    table = constants_table(audited(0.0))
    assert table is not None
    assert table.columns == (("honesty", "question"), ("helpfulness", "task"))
    assert [name for name, _ in table.rows] == ["empty", "not knowing"]
    (first, dash), _ = (cells for _, cells in table.rows)
    assert first.startswith("25")
    assert dash == "\u2013"
    assert constants_table(make_report(["honesty"])) is None


@pytest.mark.parametrize(("section", "value"), [("constants", [{"axis": 3}]), ("audit", {"rows": 3})])
def test_another_shape_is_refused(section: str, value: Any) -> None:
    report = audited(0.0)
    (report if section == "constants" else report["judges"][0])[section] = value
    with pytest.raises(ArtifactError, match=rf"report.json: .*{section}: .*evaluate the run again"):
        html_page(report)
