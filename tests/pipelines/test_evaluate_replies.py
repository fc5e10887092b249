"""What a server may send in place of an answer or a verdict, and what an evaluation makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from endpoint_server import Failure, endpoint_server
from evaluate_for_tests import N, own_suite, speak, target
from mocae.cli import main
from mocae.evaluation import read_samples
from mocae.pipelines.evaluate import evaluate
from mocae.pipelines.scoring import score_file
from mocae.pipelines.suite import load_suite, with_endpoint_judges

FILTERED = Failure(400, b'{"error": {"message": "filtered by policy", "param": "prompt", "code": "content_filter"}}')
MIXED = """
name: mixed
version: 1
description: tasks and requests
axes:
  - name: helpfulness
    test:
      source: table
      path: rows.jsonl
      options: {probe: task, columns: {prompt: prompt}, facts: {reference: reference}}
  - name: harmlessness
    test: {source: table, path: requests.jsonl, options: {probe: benign, columns: {prompt: prompt}}}
judges: [{judge: reference-overlap}, {judge: refusal}]
generation: {max_new_tokens: 8}
"""


def test_filtered_prompts_and_comparisons_cost_themselves_and_are_told(tmp_path: Path) -> None:
    def behave(text: str, before: int) -> Any:
        return FILTERED if text == "Say 3." or "<answer_a>\n4." in text else speak(text, before)

    with endpoint_server(behave) as server:
        suite = own_suite(tmp_path, server.base_url)
        report = evaluate(target(server), suite, out=tmp_path / "out", progress=False).report
        asked = dict(server.asked)
        evaluate(target(server), suite, out=tmp_path / "out", progress=False)
        again = [text for text in asked if server.asked[text] > asked[text]]
    assert again == ["Say 3."]  # an answer may come yet; the comparison is known to be filtered
    assert (report["counts"]["unanswered"], report["judges"][0]["n_unscored"]) == (1, 1)
    assert report["systems"]["model"]["helpfulness"]["win_rate"]["n"] == N - 2
    assert "openai:win-rate:judge: 2 verdicts unscored: filtered" in report["notes"]
    assert any("last reason for no answer" in note and "filtered by policy" in note for note in report["notes"])
    (lost,) = [s for s in read_samples(tmp_path / "out" / "samples.jsonl") if s.verdicts["win"].score is None]
    assert "filtered by policy" in lost.verdicts["win"].raw


def test_thoughts_are_kept_beside_the_answer_and_are_not_judged(tmp_path: Path) -> None:
    def behave(text: str, before: int) -> Any:
        if "<answer_a>" in text:
            return speak(text, before)
        return "<think>It should be 1. but" if text == "Say 1." else f"<think>reference {text}</think>{text[4:]}"

    with endpoint_server(behave) as server:
        suite = own_suite(tmp_path, server.base_url)
        report = evaluate(target(server), suite, out=tmp_path / "out", progress=False).report
        again = evaluate(target(server), suite, out=tmp_path / "out", progress=False).report
        assert not any("think" in text or "should be" in text for text in server.asked)
    samples = {s.answer.example.prompt: s.answer for s in read_samples(tmp_path / "out" / "samples.jsonl")}
    assert (samples["Say 1."].text, samples["Say 1."].thought) == ("", "It should be 1. but")
    assert (samples["Say 2."].text, samples["Say 2."].thought) == ("2.", "reference Say 2.")
    note = f"{N} answers came with a thought, which was not judged; 1 are thought alone"
    assert note in report["notes"]
    assert note in again["notes"]


def test_half_a_character_ruins_nothing(tmp_path: Path) -> None:
    with endpoint_server(lambda text, n: speak(text, n) if "<answer_a>" in text else f"{text[4:]} \ud83d") as server:
        suite = own_suite(tmp_path, server.base_url)
        evaluate(target(server), suite, out=tmp_path / "out", limit=4, progress=False)
        evaluate(target(server), suite, out=tmp_path / "out", limit=4, progress=False)
    assert all(s.answer.text.endswith(" \ufffd") for s in read_samples(tmp_path / "out" / "samples.jsonl"))


def test_a_judge_behind_a_server_takes_the_place_of_the_local_ones(tmp_path: Path) -> None:
    own_suite(tmp_path, "")
    (tmp_path / "requests.jsonl").write_text('{"prompt": "Say yes."}\n', encoding="utf-8")
    (tmp_path / "mixed.yaml").write_text(MIXED, encoding="utf-8")
    suite = load_suite(str(tmp_path / "mixed.yaml"), [f"data_root={tmp_path}"])

    def behave(text: str, before: int) -> str:
        return "Verdict: no" if "<request>" in text else speak(text, before)

    with endpoint_server(behave) as server:
        judged = with_endpoint_judges(suite, base_url=server.base_url, model="j")
        report = evaluate(target(server), judged, out=tmp_path / "out", progress=False).report
        verdicts = sum(n for text, n in server.asked.items() if "<answer" in text)
    assert {judge["name"] for judge in report["judges"] if judge["n_verdicts"]} == {
        "openai:win-rate:j",
        "openai:refusal:j",
    }
    assert verdicts == 2 * N + 1  # one comparison in both orders a task, one question about the request
    assert report["systems"]["model"]["win_rate_against"] == "reference"


def test_a_win_rate_is_the_same_number_in_the_report_and_from_its_samples(tmp_path: Path) -> None:
    def behave(text: str, before: int) -> str:
        return "Verdict: A" if "<answer_a>" in text and ("1." in text) else speak(text, before)  # flips

    with endpoint_server(behave) as server:
        suite = own_suite(tmp_path, server.base_url)
        report = evaluate(target(server), suite, out=tmp_path / "out", progress=False).report
    lines = (tmp_path / "out" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{"preference": 1 + json.loads(line)["verdicts"]["win"]["score"]} for line in lines]
    (tmp_path / "wins.json").write_text(json.dumps(rows), encoding="utf-8")
    entry = report["systems"]["model"]["helpfulness"]
    assert entry["win_rate"]["value"] == score_file("win-rate", tmp_path / "wins.json").values["win_rate"] < 1
    assert entry["pass_rate"]["value"] == 1 - 2 * (1 - entry["win_rate"]["value"])  # a flip passes nothing


def test_parameters_are_set_on_the_command_line(tmp_path: Path) -> None:
    own_suite(tmp_path, "http://127.0.0.1:9/v1")
    with endpoint_server(speak) as server:
        words = ["eval", "--endpoint", server.base_url, "--model", "m", "--suite", str(tmp_path / "own.yaml")]
        words += ["--judge-endpoint", server.base_url, "--judge-model", "j", "--limit", "1", "--no-progress"]
        words += ["--parameter", "seed=null", "--judge-parameter", "max_tokens=7"]
        with pytest.raises(SystemExit) as left:
            main([*words, "--set", f"data_root={tmp_path}", "--out", str(tmp_path / "out")])
    assert left.value.code == 0
    answers, verdicts = (
        [body for body in server.bodies if ("<answer_a>" in body["messages"][-1]["content"]) is judged]
        for judged in (False, True)
    )
    assert all("seed" not in body for body in answers)
    assert {body["max_tokens"] for body in verdicts} == {7}
