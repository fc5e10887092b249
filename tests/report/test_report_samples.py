from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from mocae.report import html_page, samples_payload
from mocae.report.samples import Payload, judges_disagree
from mocae.types import Answer, Example, Sample, Verdict

HOSTILE = "</script><script>alert(1)</script>"


def sample(system: str, prompt: str, text: str = "four", *, ok: bool | None = True, axis: str = "honesty") -> Sample:
    verdicts = {"correct": Verdict(None if ok is None else float(ok), "looked up", "verifier")}
    return Sample(system, Answer(Example(prompt, axis, "task", kind="add"), text, {axis: 1.0}), verdicts, ok)


def unpacked(payload: Payload | None) -> list[dict[str, Any]]:
    assert payload is not None
    read: list[dict[str, Any]] = json.loads(gzip.decompress(base64.b64decode(payload.data)))
    return read


def test_every_answer_comes_back() -> None:
    samples = [
        sample("base", "2 + 2?"),
        sample("alignx", "2 + 2?", "fünf", ok=False),
        sample("base", "3 + 3?", ok=None),
    ]
    payload = samples_payload(samples)
    first, second = unpacked(payload)
    assert payload is not None
    assert (payload.n, payload.n_all) == (3, 3)
    assert (first["prompt"], first["axis"], first["kind"], first["differ"]) == ("2 + 2?", "honesty", "task · add", True)
    assert [(a["system"], a["text"], a["ok"]) for a in first["answers"]] == [
        ("base", "four", True),
        ("alignx", "fünf", False),
    ]
    assert second["answers"][0] == {
        "system": "base",
        "text": "four",
        "ok": None,
        "weights": "honesty 1.00",
        "verdicts": "correct unscored (looked up)",
        "split": False,
    }
    assert samples_payload(samples) == payload
    assert samples_payload([]) is None


def test_an_upper_bound_is_no_disagreement() -> None:
    samples = [sample("base", "2 + 2?", ok=False), sample("oracle", "2 + 2?")]
    assert unpacked(samples_payload(samples, bounds=["oracle"]))[0]["differ"] is False


def test_too_much_text_is_cut_at_prompts_of_every_axis_and_said() -> None:
    axes = ("honesty", "courage")
    samples = [sample(s, f"{axis} {i}", axis=axis) for axis in axes for i in range(50) for s in ("base", "alignx")]
    payload = samples_payload(samples, most_bytes=6000)
    kept = unpacked(payload)
    assert payload is not None
    assert payload.n == 2 * len(kept) < payload.n_all == 200
    assert {prompt["axis"] for prompt in kept} == set(axes)
    assert all(len(prompt["answers"]) == 2 for prompt in kept)


@pytest.mark.parametrize(
    ("verdicts", "split"),
    [
        ({"unsafe": Verdict(1.0, "3 of 3", "vote(a, b, c)")}, False),
        ({"unsafe": Verdict(None, "unscored: 1 of 2", "vote(a, b)")}, True),
        ({"win": Verdict(0.5, "flipped", "server")}, True),
        ({"unsafe": Verdict(1.0, "", "guard"), "refusal": Verdict(1.0, "", "rules")}, True),
        ({"unsafe": Verdict(0.0, "", "guard"), "refusal": Verdict(1.0, "", "rules")}, False),
        ({"correct": Verdict(1.0, "", "references"), "abstains": Verdict(1.0, "", "words")}, True),
        ({"correct": Verdict(1.0, "", "one"), "abstains": Verdict(1.0, "", "one")}, False),
    ],
)
def test_when_judges_disagree(verdicts: dict[str, Verdict], split: bool) -> None:
    assert judges_disagree(verdicts) is split


def test_the_page_holds_all_answers_and_no_text_of_them_can_be_markup(report: dict[str, Any]) -> None:
    page = html_page(report, [sample(HOSTILE, HOSTILE, HOSTILE)])
    assert "alert" not in page
    packed = page.split('class="packed">')[1].split("<")[0]
    assert unpacked(Payload(packed, 1, 1))[0]["answers"][0]["text"] == HOSTILE
    assert "innerHTML" not in page
    assert "samples.jsonl beside it has them" in html_page(report)


def test_examples_link_to_every_answer_to_their_prompt(report: dict[str, Any]) -> None:
    report["examples"][0]["prompt"] = 'What is\n "two" and two?'
    answer = {"text": "four", "weights": None, "acceptable": True}
    report["examples"][0]["answers"] = {f"variant {n}": answer for n in range(20)} | {"joint": answer, "alignx": answer}
    page = html_page(report, [sample("base", "2 + 2?")])
    assert 'href="#samples" data-find="What is &#34;two&#34; and two?">all 22 systems on this prompt' in page
    shown = page[page.index('class="example"') :].split("</article>")[0]
    assert [name for name in ("alignx", "joint", "variant 0", "variant 1", "variant 2") if f"<h4>{name}" in shown] == [
        "alignx",
        "joint",
        "variant 0",
        "variant 1",
    ]
