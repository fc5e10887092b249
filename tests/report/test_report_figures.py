from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from mocae.report.colours import AXIS_COLOURS, MUTED, axis_colour
from mocae.report.conclusions import whom
from mocae.report.figures import (
    Plate,
    draw_forgetting,
    draw_kinds,
    draw_refusal,
    draw_reliability,
    draw_routing,
    draw_systems,
)
from mocae.report.figures.canvas import canvas, shorten, to_panel
from report_for_tests import make_report

DRAW = [draw_systems, draw_kinds, draw_forgetting, draw_refusal, draw_reliability, draw_routing]


def _texts(plate: Plate) -> list[str]:
    return ["".join(text.itertext()) for panel in plate.panels for text in ET.fromstring(panel.svg).iter("text")]


@pytest.mark.parametrize("draw", DRAW)
def test_a_figure_without_data_says_why(draw: Callable[..., Plate]) -> None:
    bare = {"recipe": {"axes": [{"name": "honesty"}]}, "systems": {"base": {}}}
    plate = draw(bare)
    assert plate.panels == ()
    assert plate.absent.endswith(".")


@pytest.mark.parametrize("draw", DRAW)
def test_a_figure_is_well_formed_named_and_asks_for_nothing(draw: Callable[..., Plate], report: dict[str, Any]) -> None:
    plate = draw(report)
    assert plate.panels
    for panel in plate.panels:
        root = ET.fromstring(panel.svg)
        assert root.attrib["aria-label"]
        assert not re.search(r"https?:|data:|<image|<style|font-family", panel.svg)
        ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
        assert len(ids) == len(set(ids))
        targets = {e.attrib["href"].removeprefix("#") for e in root.iter() if "href" in e.attrib}
        assert targets <= set(ids)


def test_there_is_a_panel_for_the_mean_and_one_an_axis() -> None:
    assert len(draw_systems(make_report(["a", "b", "c", "d"])).panels) == 5
    assert len(draw_systems(make_report(["a"])).panels) == 1


def test_a_system_without_a_score_keeps_its_row(report: dict[str, Any]) -> None:
    report["systems"]["base"]["axis_scores"]["honesty"] = None
    plate = draw_systems(report)
    assert _texts(plate).count("base") == 4
    assert _texts(plate).count("\u2013") == 1


def test_names_are_drawn_as_text_not_as_mathematics_or_markup(report: dict[str, Any]) -> None:
    report["systems"] = {"$x^2$ <b>&": report["systems"]["base"], "\x00\u4f60": report["systems"]["joint"]}
    texts = _texts(draw_systems(report))
    assert "$x^2$ <b>&" in texts
    assert "\ufffd\u4f60" in texts


def test_the_heat_map_shows_every_rate_and_a_dash_for_none(report: dict[str, Any]) -> None:
    report["forgetting"]["matrix"][0][0] = None
    texts = _texts(draw_forgetting(report))
    assert (texts.count("90.0 %"), texts.count("20.0 %"), texts.count("\u2013")) == (3, 8, 1)


def test_the_reliability_diagram_counts_its_bins_and_skips_empty_ones(report: dict[str, Any]) -> None:
    texts = _texts(draw_reliability(report))
    assert "alignx: ECE 10.0 %" in texts
    assert "1.2k" in texts
    assert "0" not in texts


def test_negative_and_large_weights_are_drawn(report: dict[str, Any]) -> None:
    report["routing"]["alignx"]["weights_by_kind"] = {"task": {"helpfulness": 1.5, "harmlessness": -0.5, "new": 0.2}}
    texts = _texts(draw_routing(report))
    assert {"150", "-50", "20"} <= set(texts)


def test_both_sides_of_refusing_have_a_row_for_every_system(report: dict[str, Any]) -> None:
    plate = draw_refusal(report)
    assert len(plate.panels) == 2
    for panel, title in zip(plate.panels, ("unsafe answers (n = 100)", "over-refusal (n = 100)"), strict=True):
        texts = _texts(Plate((panel,)))
        assert {title, *report["systems"]} <= set(texts)
    del report["systems"]["base"]["harmlessness"]["over_refusal_rate"]
    assert _texts(draw_refusal(report)).count("\u2013") == 1


def test_rows_of_a_figure_do_not_cover_each_other(report: dict[str, Any]) -> None:
    report["systems"] |= {f"{name} again": entry for name, entry in report["systems"].items()}
    for panel in (*draw_systems(report).panels, *draw_refusal(report).panels):
        names = [
            text for text in ET.fromstring(panel.svg).iter("text") if "".join(text.itertext()) in report["systems"]
        ]
        heights = sorted(float(name.attrib["y"]) for name in names)
        assert len(names) == 10
        assert min(b - a for a, b in itertools.pairwise(heights)) > 14


def test_a_kind_that_goes_to_one_expert_is_said_and_not_drawn(report: dict[str, Any]) -> None:
    kinds = {
        "task": {"helpfulness": 1.0, "honesty": 0.0},
        "look_alike": {"helpfulness": 0.998, "honesty": 0.002},
        "invented": {"helpfulness": 0.1, "honesty": 0.9},
    }
    report["routing"]["alignx"]["weights_by_kind"] = kinds
    assert whom(report) == ["alignx sends task, look alike to helpfulness; invented (90 %) to honesty."]
    texts = _texts(draw_routing(report))
    assert "invented" in texts
    assert not {"task", "look alike", "100"} & set(texts)
    del kinds["invented"]
    assert draw_routing(report) == Plate(absent="No kind of prompt is shared by several experts.")


def test_a_bin_of_few_prompts_has_no_dot(report: dict[str, Any]) -> None:
    report["routing"]["alignx"]["reliability"].append(
        {"low": 0.2, "high": 0.3, "confidence": 0.25, "accuracy": 1, "n": 4}
    )
    (panel,) = draw_reliability(report).panels
    assert "(1234 prompts)" in panel.svg
    assert "(4 prompts)" not in panel.svg


def test_an_axis_keeps_its_colour_and_an_unknown_one_is_grey() -> None:
    axes = [f"axis{i}" for i in range(9)]
    assert [axis_colour(a, axes) for a in axes] == [*AXIS_COLOURS, AXIS_COLOURS[0]]
    assert axis_colour("other", axes) == MUTED


def test_colours_become_variables_of_the_page() -> None:
    with canvas(200, 100) as figure:
        figure.subplots().plot([0, 1], [0, 1], color=AXIS_COLOURS[1])
        svg = to_panel(figure, key="a b", description="x").svg
    assert "stroke: var(--axis-1)" in svg
    assert 'id="ax20b-' in svg


def test_long_names_are_shortened() -> None:
    assert shorten("x" * 30, 10) == "x" * 9 + "…"


def test_kinds_stand_lowest_first_of_the_best_system_marked_against_the_base(report: dict[str, Any]) -> None:
    for system, (hard, easy) in {"base": (0.1, 0.4), "alignx": (0.25, 0.75), "oracle": (1.0, 1.0)}.items():
        report["systems"][system]["kinds"] = {
            kind: {"pass_rate": {"value": value, "low": value, "high": value, "n": 20}}
            for kind, value in (("easy_one", easy), ("hard_one", hard))
        }
    (panel,) = draw_kinds(report).panels
    assert "hard one 25.0 % [25.0, 25.0]; easy one 75.0 %" in panel.svg
    assert {"alignx, and base as a line", "hard one", "25.0  n 20"} <= set(_texts(draw_kinds(report)))
    many = {f"kind {i}": {"pass_rate": {"value": i / 45, "low": 0.4, "high": 0.6, "n": 9}} for i in range(45)}
    report["systems"]["alignx"]["kinds"] = many | {
        "easy": {"pass_rate": {"value": 1.0, "low": 0.9, "high": 1.0, "n": 9}}
    }
    (panel,) = draw_kinds(report).panels
    assert "(lowest 12 of 46)" in panel.svg
    assert "easy" not in panel.svg
