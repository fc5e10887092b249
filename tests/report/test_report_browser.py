"""The page of a report in a browser: what fits, and the list of all answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser_for_tests import launched_browser
from mocae.report import html_page
from mocae.types import Answer, Example, Sample, Verdict
from report_for_tests import make_report

pytestmark = pytest.mark.slow

AXES = ["helpfulness", "harmlessness", "honesty"]
HOSTILE = "<img src=x onerror=alert(1)></script>"


def samples() -> list[Sample]:
    made = []
    for number in range(40):
        example = Example(f"Question {number}?\n{HOSTILE}", AXES[number % 3], "task")
        for system, right in (("base", False), ("alignx", number % 4 == 0)):
            verdicts = {"correct": Verdict(float(right), "", "verifier")}
            made.append(Sample(system, Answer(example, f"{system} says {number}"), verdicts, right))
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched_browser() as made:
        yield made


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["wide", "narrow"])
def page(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height = request.param
    report = make_report(AXES)
    report["examples"][0]["prompt"] = samples()[0].answer.example.prompt
    report["examples"][0]["answers"] |= {name: {"text": "four", "acceptable": True} for name in ("joint", "other")}
    (tmp_path / "report.html").write_text(html_page(report, samples()), encoding="utf-8")
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(20_000)
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message))
    opened.goto((tmp_path / "report.html").as_uri())
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()
    assert wrong == []


def test_every_filter_of_the_list(page: Any) -> None:
    def found() -> str:
        return str(page.locator(".found").text_content())

    page.click("#samples > summary")
    page.wait_for_selector("#samples .answer")
    assert found() == "80 of 80 answers match; 50 shown."
    assert page.locator("#samples .answer").count() == 50
    page.click(".onward")
    assert found() == "80 of 80 answers match; 80 shown."
    assert page.locator("#samples img").count() == 0
    assert HOSTILE in page.locator("#samples .prompt").first.text_content()
    page.select_option("[name=axis]", "harmlessness")
    assert found() == "26 of 80 answers match; 26 shown."
    page.select_option("[name=system]", "alignx")
    assert found() == "13 of 80 answers match; 13 shown."
    page.select_option("[name=ok]", "true")
    assert found() == "3 of 80 answers match; 3 shown."  # of the numbers 1, 4, 7, ... 37: 4, 16 and 28
    page.check("[name=split]")
    assert found() == "0 of 80 answers match; 0 shown."


def test_what_the_systems_disagree_on_and_text(page: Any) -> None:
    page.click("#samples > summary")
    page.wait_for_selector("#samples .answer")
    page.check("[name=differ]")
    assert page.locator(".found").text_content() == "20 of 80 answers match; 20 shown."
    page.fill("[name=text]", "ALIGNX  says 1")
    assert page.locator("#samples .said").all_text_contents() == ["alignx says 12", "alignx says 16"]


def test_an_example_opens_the_list_at_its_prompt(page: Any) -> None:
    page.locator("summary", has_text="side by side").click()
    page.click("a[data-find]")
    page.wait_for_selector("#samples .answer")
    assert page.locator("#samples .said").all_text_contents() == ["base says 0", "alignx says 0"]


def test_the_first_screen_holds_the_finding_and_the_page_is_short_before_its_folds(page: Any) -> None:
    wide = page.viewport_size["width"] == 1280
    assert page.evaluate("document.documentElement.scrollHeight") < (6000 if wide else 9000)
    headline, picture, lines = (
        page.locator(f"#finding {place}").bounding_box() for place in (".headline", "svg", "dl")
    )
    assert headline["y"] < picture["y"] < lines["y"] + (400 if wide else 0)
    assert lines["y"] + lines["height"] < (800 if wide else 844)
    assert page.locator("td.first").first.evaluate("cell => getComputedStyle(cell).display") == "table-cell"
