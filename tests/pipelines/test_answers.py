"""Answers that somebody already has: read whatever their columns are called, judged, counted, and judged once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mocae.cli import main
from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.evaluation import read_samples
from mocae.judges import JUDGES
from mocae.pipelines.answers import Asked, judge_answers_of, read_answers
from mocae.pipelines.compare import compare
from mocae.pipelines.scoring import score_file
from mocae.types import Answer, Verdict

ROWS = [
    {"instruction": "Tell me of tea.", "output": "Tea is a drink made of leaves.", "generator": "one", "topic": "food"},
    {"instruction": "Tell me of tea.", "output": "I can't help with that.", "generator": "two", "topic": "food"},
    {"instruction": "Name a river.", "output": "The Danube is a river.", "generator": "one", "topic": "earth"},
    {"instruction": "Name a river.", "output": "I'm sorry, but I cannot assist.", "generator": "two", "topic": "earth"},
    {"instruction": "Name a hill.", "output": None, "generator": "two", "topic": "earth"},
]


class Short:
    """Takes an answer of fewer than six words for a refusal, and remembers what it was asked."""

    name = "short"
    judgements = ("refusal",)
    quality = None
    asked: list[str] = []  # noqa: RUF012 - of the class: judges are made anew by every call

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        self.asked += [answer.text for answer in answers]
        return [
            {"refusal": Verdict(None if "river" in a.text else float(len(a.text.split()) < 6), "", self.name)}
            for a in answers
        ]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> type[Short]:
    monkeypatch.setattr(JUDGES, "_loaded", {**JUDGES._loaded, "short": Short})
    monkeypatch.setattr(Short, "asked", [])
    return Short


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    return _write(tmp_path / "answers.jsonl", ROWS)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _rates(report: dict[str, Any], section: str = "rates") -> dict[tuple[str, ...], tuple[float | None, int, int]]:
    return {
        (row["system"], row["probe"], row["part"], row["judge"], row["judgement"]): (
            row["value"],
            row["n"],
            row["unscored"],
        )
        for row in report[section]
    }


def test_two_judges_of_one_judgement_are_both_asked_and_compared(answers: Path, tmp_path: Path) -> None:
    asked = Asked(["refusal", "short"], columns={"kind": "topic"})
    report = judge_answers_of(answers, asked, out=tmp_path / "out", progress=False).report
    assert _rates(report) == {
        ("one", "", "", "refusal", "refusal"): (0.0, 2, 0),
        ("one", "", "", "short", "refusal"): (0.0, 1, 1),
        ("two", "", "", "refusal", "refusal"): (1.0, 2, 0),
        ("two", "", "", "short", "refusal"): (0.5, 2, 0),
    }
    assert _rates(report, "kinds")["two", "", "earth", "refusal", "refusal"] == (1.0, 1, 0)
    (pair,) = report["agreement"]
    assert (pair["judges"], pair["n"], pair["disagree"]) == (["refusal", "short"], 3, 1)
    assert report["counts"] | {"silent": 1, "unscored": 1, "answers": 4} == report["counts"]
    assert "1 rows have no response and are in no number" in report["notes"]
    samples = list(read_samples(tmp_path / "out" / "samples.jsonl"))
    assert [list(sample.verdicts) for sample in samples] == [["refusal", "refusal by short"]] * 4
    assert {sample.acceptable for sample in samples} == {None}  # nobody said what is wanted of an answer
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "refusal and short disagree on 1 of 3" in page
    assert "http" not in page.replace("http-equiv", "")


def test_no_judge_is_asked_twice_about_one_answer(answers: Path, tmp_path: Path, short: type[Short]) -> None:
    first = judge_answers_of(answers, Asked(["short"]), out=tmp_path / "out", progress=False).report
    given = [row["output"] for row in ROWS if row["output"]]
    assert [text for text in short.asked if text in given] == given  # and the constant answers of its audit
    short.asked.clear()
    more = [*ROWS, {"instruction": "Name a lake.", "output": "Lake Constance.", "generator": "one", "topic": "earth"}]
    _write(answers, more)
    again = judge_answers_of(answers, Asked(["short"]), out=tmp_path / "out", progress=False).report
    assert [text for text in short.asked if text in {*given, "Lake Constance."}] == ["Lake Constance."]
    assert (first["counts"]["answers"], again["counts"]["answers"]) == (4, 5)


def test_a_kind_of_prompt_says_which_answers_are_acceptable(answers: Path, tmp_path: Path) -> None:
    asked = Asked(["refusal"], kind_of_prompt="benign", where=["generator=two"])
    result = judge_answers_of(answers, asked, out=tmp_path / "out", progress=False)
    assert _rates(result.report)["two", "benign", "", "", "acceptable"] == (0.0, 2, 0)
    scored = score_file("over_refusal_rate", tmp_path / "out" / "samples.jsonl")
    assert (scored.values["over_refusal_rate"], scored.n) == (1.0, 2)


def test_prompts_of_a_suite_bring_what_judges_need_and_others_are_counted(tmp_path: Path) -> None:
    prompts = [
        {"q": "What is the capital of France?", "right": "Paris"},
        {"q": "What is the capital of Spain?", "right": "Madrid"},
    ]
    _write(tmp_path / "asked.jsonl", prompts)
    suite = {
        "name": "capitals",
        "version": 1,
        "description": "capitals",
        "axes": [
            {
                "name": "facts",
                "tests": {
                    "source": "table",
                    "path": "asked.jsonl",
                    "options": {"probe": "task", "columns": {"prompt": "q"}, "facts": {"reference": "right"}},
                },
            }
        ],
        "judges": [{"judge": "reference-match"}],
    }
    (tmp_path / "capitals.yaml").write_text(json.dumps(suite), encoding="utf-8")
    rows = [{"prompt": row["q"], "answer": "Paris"} for row in prompts] + [{"prompt": "Else?", "answer": "No."}]
    answers = _write(tmp_path / "mine.jsonl", rows)
    asked = Asked([str(tmp_path / "capitals.yaml")], settings=[f"data_root={tmp_path}"])
    report = judge_answers_of(answers, asked, out=tmp_path / "out", progress=False).report
    assert _rates(report)["mine.jsonl", "task", "", "", "acceptable"] == (0.5, 2, 0)
    assert report["counts"]["unknown"] == 1
    by_file = Asked(
        ["reference-match"],
        prompts=tmp_path / "asked.jsonl",
        source='table:{"probe": "task", "columns": {"prompt": "q"}, "facts": {"reference": "right"}}',
    )
    again = judge_answers_of(answers, by_file, out=tmp_path / "other", progress=False).report
    assert _rates(again) == _rates(report)


def test_a_judge_may_be_named_like_a_suite_and_a_folder_like_a_judge(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").mkdir()  # a folder that happens to be there
    judge_answers_of(answers, Asked(["short"]), out=tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match=r"unknown judge or suite 'shorn'\. .*Did you mean 'short'\?"):
        judge_answers_of(answers, Asked(["shorn"]), out=tmp_path / "new", progress=False)


def test_two_systems_of_one_file_can_be_compared(answers: Path, tmp_path: Path) -> None:
    asked = Asked(["refusal"], kind_of_prompt="benign")
    judge_answers_of(answers, asked, out=tmp_path / "out", progress=False)
    compared = compare(f"{tmp_path / 'out'}:two", f"{tmp_path / 'out'}:one")
    assert compared.rows[0].difference.value == -1.0


def test_a_judge_of_one_kind_is_asked_about_prompts_of_untold_kind(answers: Path, tmp_path: Path) -> None:
    asked = Asked(['refusal:{"probes": ["harmful"]}'])
    report = judge_answers_of(answers, asked, out=tmp_path / "out", progress=False).report
    assert _rates(report)["two", "", "", "refusal", "refusal"] == (1.0, 2, 0)


def test_columns_are_found_by_their_usual_names_or_as_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("ask,said,reference\nWho?,Nobody.,Ann\nWho?,,Ann\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column of the prompt: .* file has 'ask', 'said', 'reference'; name it"):
        read_answers(path)
    with pytest.raises(DataError, match=r"--column prompt=asked: unknown column 'asked'.*Did you mean 'ask'\?"):
        read_answers(path, columns={"prompt": "asked", "response": "said"})
    rows = read_answers(path, columns={"prompt": "ask", "response": "said", "reference": "reference"})
    assert [given.answer.text for given in rows.answers] == ["Nobody.", ""]  # an empty cell is an empty answer
    assert rows.answers[0].answer.example.facts == {"reference": "Ann"}
    assert rows.answers[0].system == "answers.csv"


def test_bad_rows_stop_or_are_counted(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", [{"prompt": "Who?", "response": "Ann."}, {"prompt": 3, "response": "x"}])
    with pytest.raises(DataError, match=r"line 2: field 'prompt': .*--on-bad-row skip leaves such rows out"):
        read_answers(path)
    assert read_answers(path, on_bad_row="skip").n_skipped == 1


def test_a_folder_of_something_else_is_left_alone(answers: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"holds files that mocae did not write there \(answers\.jsonl"):
        judge_answers_of(answers, Asked(["short"]), out=tmp_path, progress=False)


def test_a_judge_without_a_word_to_say_is_an_error(answers: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no verdict on any of 4 answers; prompts are of kind task\."):
        judge_answers_of(answers, Asked(["abstention"], kind_of_prompt="task"), out=tmp_path / "o", progress=False)


def test_the_command_writes_beside_the_file_and_prints_rates(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["judge", "run", "refusal", "--answers", str(answers), "--no-progress"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "two" in out
    assert "100.0 %" in out
    assert "balanced accuracy 91.5 % on 2\u202f647 labelled answers" in out
    assert (answers.with_name("answers.jsonl.judged") / "report.html").is_file()


def test_what_a_judge_is_worth(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def shown(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["judge", "show", *words])
        return int(str(ended.value.code)), capsys.readouterr().out

    assert "held out: accuracy 0.856, balanced accuracy 0.915, AUROC 0.964" in shown("refusal")[1]
    assert "exact: the task defines which answers are right" in shown("ifeval")[1]
    assert shown(str(tmp_path))[0] == 1
