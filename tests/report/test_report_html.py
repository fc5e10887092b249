from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.report import html_page
from report_for_tests import make_report

VOID = {"meta", "link", "input", "wbr", "br", "hr", "img"}
HOSTILE = "</p><script>alert(1)</script>\"'>&lt;"


class Page(HTMLParser):
    """Tags, attributes and text of a page; `unbalanced` lists end tags that close nothing."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_whole_and_asks_for_nothing(page: str) -> None:
    read = Page(page)
    assert read.unbalanced == []
    assert read.open == []
    fetched = [v for _, attrs in read.tags for k, v in attrs.items() if k in ("src", "href", "srcset", "action") and v]
    assert [v for v in fetched if not v.startswith(("#", "data:"))] == []
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {v[1:] for tag, attrs in read.tags if tag == "a" and (v := attrs["href"])}
    assert links <= set(ids)


def test_the_same_report_gives_the_same_page(page: str) -> None:
    assert html_page(make_report(["helpfulness", "harmlessness", "honesty"])) == page


def test_the_page_opens_with_what_was_found(page: str) -> None:
    first = page[page.index('id="finding"') : page.index("<nav")]
    assert "94.0\u00a0% [92.0, 96.0] acceptably" in first
    assert "n\u00a0=\u00a0100 test prompts; the base model: 40.0\u00a0%), " in first
    assert "%), 9.0\u00a0points [7.0, 11.0] ahead of its best rival joint" in first
    assert "<b>alignx</b>: what alignx is." in first
    titles = [title for title in re.findall(r"<dt>(.*?)</dt>", first)]
    assert titles == ["What it cost", "Believe it?", "Do next"]
    assert first.index("<svg") < first.index("<dt>"), "one picture, then the lines"
    assert first.count("<svg") == 1
    body = page[page.index("<body>") :]
    defined = body.index("Axis collapse (learning one axis unlearns another)")
    assert body.lower().replace('href="#collapse"', "").index("collapse") == defined + 5, "defined where first named"
    assert "Can routing matter? Yes (go). The right expert for each of 90" in page[page.index('id="routing"') :]


def test_notes_stand_in_the_first_lines_and_beside_the_table(page: str) -> None:
    first = page[page.index('id="finding"') : page.index("<nav")]
    assert "With care: synthetic, tiny model; " in first
    assert "; 3 verdicts could not be read and count for no side." in first
    assert page.index("<li>synthetic, tiny model</li>") < page.index('class="sortable"', page.index('id="systems"'))


def test_judges_are_named_beside_the_figures_they_decide(page: str) -> None:
    refusal = page[page.index('id="refusal"') : page.index('id="judges"')]
    assert "verifier (correct, unsafe): balanced accuracy 98.0\u00a0% on 600 labelled answers" in refusal
    assert "words (refusal): not checked against labelled answers" in refusal
    assert "on 600 labelled answers, 3 of 900 verdicts unscored" in refusal


def test_what_a_server_took_and_how_often_order_decided_stand_beside_its_judge(report: dict[str, Any]) -> None:
    assert "from the cache" not in html_page(report)
    usage = {"requests": 12, "cached": 4, "prompt_tokens": 100, "completion_tokens": 20, "cost": 0.0123}
    report["judges"][0] |= {"usage": usage, "flip_rate": 0.125}
    told = "12 requests, 4 from the cache; 120 tokens; cost 0.0123; 12.5\u00a0% flipped with the order"
    assert told in html_page(report)
    report["judges"][0]["usage_before"] = {"answered": 7, "prompt_tokens": 70, "completion_tokens": 14, "cost": 0.5}
    assert "; cost 0.0123; earlier starts: 7 replies, 84 tokens, cost 0.5; 12.5" in html_page(report)


def test_all_text_from_models_and_files_is_escaped(report: dict[str, Any]) -> None:
    plain = len([tag for tag, _ in Page(html_page(report)).tags if tag == "script"])
    report["recipe"]["name"] = HOSTILE
    report["recipe"]["base"]["model"] = HOSTILE
    report["recipe"]["axes"][0]["injection"] = HOSTILE
    report["notes"] = [HOSTILE]
    report["environment"] = {HOSTILE: HOSTILE}
    report["judges"][0] |= {"name": HOSTILE, "quality": {"n": 1, "note": HOSTILE}}
    report["systems"][HOSTILE] = report["systems"]["base"]
    report["routing"][HOSTILE] = report["routing"]["alignx"]
    report["examples"][0] |= {"prompt": HOSTILE, "axis": HOSTILE, "probe": HOSTILE}
    report["examples"][0]["answers"][HOSTILE] = {"text": HOSTILE, "weights": {HOSTILE: 0.5}, "acceptable": None}
    page = html_page(report)
    read = Page(page)
    assert "<script>alert" not in page
    assert len([tag for tag, _ in read.tags if tag == "script"]) == plain == 1
    assert (read.unbalanced, read.open) == ([], [])
    assert HOSTILE in "".join(read.words)


@pytest.mark.parametrize("axes", [["honesty"], ["helpfulness", "harmlessness", "honesty", "courage & $wit$"]])
def test_any_number_of_axes(axes: list[str]) -> None:
    read = Page(html_page(make_report(axes)))
    assert (read.unbalanced, read.open) == ([], [])
    assert all(axis in "".join(read.words) for axis in axes)


def test_what_is_absent_is_left_out_with_a_reason() -> None:
    whole = make_report(["honesty"])
    bare = {key: whole[key] for key in ("schema", "recipe")} | {"systems": {"base": {}, "joint": None}}
    page = html_page(bare)
    assert page.count("Not drawn. ") == 7
    assert "The report holds no example answers." in page
    assert "The report names no judges" in page
    assert "<svg" not in page


def test_missing_values_are_dashes_that_sort_last(report: dict[str, Any]) -> None:
    report["systems"]["base"]["mean_axis_score"] = {"value": None, "low": None, "high": None, "n": 0}
    row = html_page(report).split('<th scope="row">base</th>')[1]
    assert re.search(r'<td data-value=""[^>]*>\u2013</td>', row[:200])


def test_weights_bars_have_the_length_of_the_weight(report: dict[str, Any]) -> None:
    report["examples"][0]["answers"] = {
        "alignx": {"text": "four", "weights": {"helpfulness": 0.75, "honesty": 0.25}, "acceptable": True}
    }
    page = html_page(report)
    assert 'style="width:75.0%;background:var(--axis-0)"' in page
    assert 'style="width:25.0%;background:var(--axis-2)"' in page


def test_another_version_is_refused(report: dict[str, Any]) -> None:
    report["schema"] = 3
    with pytest.raises(ArtifactError, match="schema: got 3"):
        html_page(report)


def test_the_page_of_one_system_tells_nothing_of_experts_and_routers(report: dict[str, Any]) -> None:
    report["systems"] = {"base": report["systems"]["base"]}
    alone = html_page(report)
    assert not [name for name in ("collapse", "routing", "calibration", "cost") if f'id="{name}"' in alone]
    assert "Not drawn" not in alone
    assert 'id="refusal"' in alone
    del report["systems"]["base"]["harmlessness"]
    assert 'id="refusal"' not in html_page(report)


def test_the_page_says_that_its_speeds_are_no_benchmark(page: str) -> None:
    assert "<code>mocae bench</code> measures" in page


def test_no_form_of_a_page_leaves_it(page: str) -> None:
    (policy,) = [attrs["content"] for tag, attrs in Page(page).tags if tag == "meta" and "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    assert (rules["form-action"], rules["base-uri"], rules["default-src"]) == ("'none'",) * 3


def test_an_expert_of_no_axis_stands_in_the_legend_of_routing(report: dict[str, Any]) -> None:
    assert "(of no axis)" not in html_page(report)
    report["routing"]["alignx"]["weights_by_kind"]["task"] = {"helpfulness": 0.4, "accepted": 0.6}
    assert html_page(report).count("accepted (of no axis)") == 1
