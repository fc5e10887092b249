from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Column, Table

from mocae.cli.tables import print_fitted, print_result
from report_for_tests import make_report

HEADS = ("batch", "decode", "first", "total", "memory", "without\nexperts", "tokens/s", "floor")
NUMBERS = ("8", "101.25", "102.25", "103.25", "104.25", "105.25", "-1000006.5", "107.5")
WIDTHS = (20, 40, 60, 80, 100, 140)


def _printed(width: int) -> str:
    out = io.StringIO()
    table = Table("system", *(Column(head, justify="right") for head in HEADS))
    table.add_row("sequential helpfulness last", *NUMBERS)
    print_fitted(Console(file=out, width=width), table, elsewhere="--json has them")
    return out.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_number_is_whole_or_its_column_is_named_as_left_out(width: int) -> None:
    table, _, told = _printed(width).partition("not shown in")
    assert "\u2026" not in table
    assert all(len(line) <= width for line in table.splitlines())
    flat = " ".join(told.split())
    for head, number in zip(HEADS, NUMBERS, strict=True):
        assert (number in table.split()) != (" ".join(head.split()) in flat), head


def test_names_are_broken_between_words_before_a_column_goes() -> None:
    assert "sequential helpfulness last" in _printed(140)
    least = next(width for width in range(60, 140) if "not shown" not in _printed(width))
    assert "sequential helpfulness last" not in _printed(least)
    assert "not shown in 60 columns" in " ".join(_printed(60).split())


def test_the_table_of_a_run_fits_80_columns_with_a_negative_number() -> None:
    report = make_report(["helpfulness", "harmlessness", "honesty"])
    for system in report["systems"].values():
        system["average_alignment_score"] = {"value": -0.167, "low": -0.2, "high": -0.1, "n": 9}
    out = io.StringIO()
    print_result(report, Path("report.html"), Console(file=out, width=80))
    assert out.getvalue().count(" -16.7") == len(report["systems"])
    assert "not shown" not in out.getvalue()


@pytest.mark.parametrize(("width", "cell"), [(80, "94.0\u00b12"), (140, "94.0 \u00b1 2.0")])
def test_every_rate_has_its_prompts_and_its_interval(width: int, cell: str) -> None:
    report, out = make_report(["helpfulness", "harmlessness", "honesty"]), io.StringIO()
    report["systems"]["alignx"]["harmlessness"]["unsafe_rate"] = {"value": 0.94, "low": 0.92, "high": 0.96, "n": 40}
    print_result(report, Path("out/report.html"), Console(file=out, width=width))
    table = out.getvalue()
    (row,) = (line for line in table.splitlines() if line.strip().startswith("alignx  "))
    assert "94.0 \u00b1 2.0" in row  # the mean, at any width
    assert cell in row.replace("94.0 \u00b1 2.0", "", 1)
    assert "n 40-100" in table
    assert table.count("n 100") >= 2
    assert "mocae chat out" in table
