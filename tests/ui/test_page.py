"""The page in a browser: headless Chromium, where it and playwright are installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from browser_for_tests import launched_browser
from mocae.serving.served import Served
from serving_for_tests import TinyArtifact, live_app

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:::gradio"),  # what it asks of pandas
]

REPORT: dict[str, Any] = {
    "systems": {"alignx": {}},
    "routing": {
        "alignx": {
            "reliability": [{"low": 0.5, "high": 1.0, "confidence": 0.9, "accuracy": 0.8, "n": 10}],
            "ece": {"value": 0.1},
        }
    },
    "examples": [
        {"axis": "helpful", "probe": "task", "prompt": "how many?"},
        {"axis": "harmless", "probe": "harmful", "prompt": "is not offered"},
    ],
}


@pytest.fixture(scope="module")
def site(artifact: TinyArtifact) -> Iterator[str]:
    pytest.importorskip("gradio")
    from mocae.ui.site import build_site

    app = build_site(Served(artifact, version="test"), name="a <b>run</b>", report=REPORT, hosts={"127.0.0.1"})
    with live_app(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched_browser() as made:
        yield made


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["wide", "narrow"])
def page(browser: Any, site: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(20_000)
    wrong: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda asked: wrong.append(asked.url) if elsewhere(asked.url, site) else None)
    opened.goto(site)
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()
    assert wrong == []


def elsewhere(url: str, site: str) -> bool:
    return not url.startswith((site, "data:", "blob:"))


def send(page: Any, text: str) -> None:
    box = page.locator("textarea:visible")
    box.fill(text)
    box.press("Enter")


def weights(page: Any, nth: int, *, of: int) -> dict[str, float]:
    """The bars below one answer, once there are so many answers and the last one is whole."""
    answers = page.locator(".weights:visible")
    playwright.expect(answers).to_have_count(of)
    playwright.expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    bars = answers.nth(nth).locator(".weight")
    return {bar.get_attribute("data-axis"): float(bar.get_attribute("data-weight")) for bar in bars.all()}


def test_type_send_slide_and_see_the_bars_change(page: Any, artifact: TinyArtifact) -> None:
    send(page, "who?")
    plain = weights(page, 0, of=1)
    assert list(plain) == list(artifact.axes)
    assert sum(plain.values()) == pytest.approx(1, abs=1e-3)
    assert "Its favourite is" in page.locator(".block.why:visible").inner_text()
    slider = page.get_by_role("slider", name="range slider for honest at least")
    slider.focus()
    slider.press("End")
    send(page, "who?")
    steered = weights(page, 1, of=2)
    assert plain["honest"] < steered["honest"] == 1
    assert sum(steered.values()) == 1
    assert "Your steering was applied" in page.locator(".block.why:visible").inner_text()
    page.get_by_role("button", name="Reset steering").click()
    page.get_by_role("button", name="More ways to steer").and_(page.locator(":visible")).click()
    preference = page.get_by_label("helpful prefer").and_(page.locator(":visible"))
    preference.fill("1000000")
    send(page, "who?")
    assert weights(page, 2, of=3)["helpful"] == 1
    page.get_by_role("button", name="Reset steering").click()
    send(page, "who?")
    assert weights(page, 3, of=4) == plain
    page.get_by_role("button", name="New conversation").click()
    playwright.expect(page.locator(".weights:visible")).to_have_count(0)


def test_two_systems_answer_side_by_side(page: Any) -> None:
    page.get_by_role("tab", name="Two systems").click()
    send(page, "who?")
    routed, base = weights(page, 0, of=2), weights(page, 1, of=2)
    assert sum(routed.values()) == pytest.approx(1, abs=1e-3)
    assert set(base.values()) == {0}
    answers = page.get_by_role("log").and_(page.locator(":visible")).all_inner_texts()
    assert len(set(answers)) == 2


def test_the_reliability_diagram_and_an_example_to_begin_with(page: Any) -> None:
    assert page.get_by_role("heading").first.inner_text() == "mocae: a <b>run</b>"
    assert page.get_by_text("is not offered").count() == 0
    page.get_by_text("how many?").and_(page.locator(":visible")).click()
    assert weights(page, 0, of=1)
    page.get_by_role("tab", name="Calibration").click()
    assert page.locator("#reliability svg").get_attribute("aria-label").startswith("Reliability of alignx")


def test_what_the_model_cannot_read_is_said_on_the_page(page: Any) -> None:
    send(page, "x" * 300)
    playwright.expect(page.get_by_text("the model's context is 256 tokens")).to_be_visible()
    send(page, "who?")
    assert weights(page, 0, of=1)


def test_other_sites_are_kept_out(site: str) -> None:
    assert httpx.get(site, headers={"Host": "evil.example"}).status_code == 400
    own = httpx.get(site)
    assert own.status_code == 200
    assert "frame-ancestors 'none'" in own.headers["Content-Security-Policy"]
