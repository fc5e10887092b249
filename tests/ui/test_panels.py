from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mocae.ui.panels import bars, reasons, reliability, style
from mocae.ui.why import Plane, Why


def test_bars_are_as_long_as_weights_and_names_are_text() -> None:
    html = bars({"<b>": 0.5, "honest": -2.0})
    assert 'data-axis="&lt;b&gt;" data-weight="0.5000"' in html
    assert "<b>" not in html
    assert "width: 25.0%" in html  # the largest weight, 2, fills the track
    assert "width: 100.0%" in html
    assert "\u22122.00" in html


def test_reasons_name_the_favourite_and_what_was_done_to_it() -> None:
    axes, values = ("helpful", "hon<est"), torch.tensor([-1.0, 1.0])
    plane = Plane(torch.zeros(2), (torch.zeros(1, 2), torch.ones(3, 2)))
    why = Why(axes, values, values, values, torch.tensor([0.25, 0.875]), 0.97, 2, plane)
    html = reasons(why, system="alignx", steered=True)
    assert "favourite is <b>hon&lt;est</b>" in html
    assert ">88 %<" in html
    assert "Your steering was applied after that." in html
    assert "97 % of the calibration prompts" in html
    assert "its chances are lowered" in html
    assert "No expert is likely" not in html
    nobody = reasons(replace(why, chances=torch.tensor([0.1, 0.2]), novelty=torch.nan), system="alignx", steered=False)
    assert "No expert is likely to answer this acceptably" in nobody
    assert "calibration prompts" not in nobody
    assert html.count("<circle") == 4
    fixed = reasons(None, system="base", steered=False)
    assert "<b>base</b> has no router" in fixed
    assert "factors" not in fixed


@pytest.mark.parametrize("report", [None, {"routing": {}, "systems": {}}])
def test_without_measurements_there_is_a_sentence(report: dict[str, Any] | None) -> None:
    assert 'class="hint"' in reliability(report)
    assert "<svg" not in reliability(report)


def test_reliability_is_the_figure_of_the_report() -> None:
    bins = [{"low": 0.5, "high": 1.0, "confidence": 0.9, "accuracy": 0.8, "n": 10}]
    report = {"systems": {"alignx": {}}, "routing": {"alignx": {"reliability": bins, "ece": {"value": 0.1}}}}
    assert "confidence 90 %: 80 % acceptable (10 prompts)" in reliability(report)


def test_the_style_asks_for_nothing() -> None:
    assert "url(" not in style()
    assert "@import" not in style()
