"""The recipe of two axes of one's own in the documentation, run to the end: no Python, and its names everywhere."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

import mocae.axes
from endpoint_server import endpoint_server
from mocae.axes import probe
from mocae.cli import main
from mocae.config import declare_probes, load_recipe, parse_recipe
from mocae.errors import ConfigError, DataError
from mocae.judges import build_judge
from mocae.judges.endpoint import load_prompt
from mocae.metrics import METRICS, metric
from mocae.pipelines.check import validate
from mocae.pipelines.compare import compare
from mocae.pipelines.judge_training import train_judge
from mocae.pipelines.scoring import score_file
from mocae.pipelines.suite import load_suite
from mocae.stages.judging import make_judges
from mocae.stages.rows import read_rows_of
from mocae.types import Answer, Example
from run_for_tests import tiny_base, tiny_recipe

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
TOPICS = [
    f"{size} {thing}"
    for size in ("old", "new", "odd")
    for thing in "soap wool rice tea ice salt glass ink jars hats".split()
]


@pytest.fixture(autouse=True)
def _declared() -> Iterator[None]:
    """What recipes declare is forgotten afterwards."""
    probes, metrics = dict(mocae.axes.PROBES), dict(METRICS._loaded)
    yield
    _forget(probes, metrics)


def _forget(probes: dict[str, Any], metrics: dict[str, Any]) -> None:
    for held, before in ((mocae.axes.PROBES, probes), (METRICS._loaded, metrics)):
        held.clear()
        held.update(before)
    mocae.axes._DECLARED.clear()
    METRICS._declared.clear()


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _labels(path: Path, n: int = 15) -> Path:
    """Write short answers and long ones, labelled."""
    long = "well, that is a long story which begins far away and leads nowhere in particular for quite some time"
    texts = ((f"it is {t}.", f"{long}, {t}, and then on and on") for t in TOPICS[:n])
    return _write(
        path,
        [
            {"prompt": f"say something of {TOPICS[i]}", "response": text, "concise": text is short}
            for i, (short, talk) in enumerate(texts)
            for text in (short, talk)
        ],
    )


def _documented(folder: Path, base_url: str) -> Path:
    """Write the recipe of docs/recipes.md and its files, on a tiny base model; return the recipe."""
    block = re.search(r"```yaml\n(name: house-style\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    text = block[1].replace("http://127.0.0.1:8000/v1", base_url).replace("data_root: data", f"data_root: {folder}")
    text = text.replace("org/model-or-folder", str(tiny_base(folder / "base"))).replace(": chat", ": plain")
    for axis in ("concise", "polite"):
        rows = [{"question": f"{axis}: what is {t}?", "answer": f"{t} is {axis}"} for t in TOPICS]
        _write(folder / f"{axis}.jsonl", rows)
    _labels(folder / "labels.jsonl")
    question = "name: rude\njudgement: rude\nquestion: Is the answer rude, mocking or impatient?\n"
    (folder / "rude.yaml").write_text(question, encoding="utf-8")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


SMALL = [
    *("experts.r=2", "experts.lora_alpha=4", "experts.from_layer=1", "experts.optimizer.epochs=1.0", "features.k=4"),
    *("features.probes_per_axis=8", "routing.outcome.l2=0.001", "generation.max_new_tokens=6", "report.resamples=50"),
]


def test_the_documented_recipe_runs_and_its_names_stand_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # paths start from data_root, not from here
    data, before = tmp_path / "data", (dict(mocae.axes.PROBES), dict(METRICS._loaded))
    data.mkdir()

    def rude(text: str, _: int) -> str:
        answer = re.search(r"<answer>\n(.*)\n</answer>", text, re.DOTALL)
        assert answer is not None
        assert text.endswith("Verdict: yes\nVerdict: no")
        return f"Verdict: {'yes' if len(answer[1]) % 2 else 'no'}"

    with endpoint_server(rude) as server:
        words = ["--quiet", "run", str(_documented(data, server.base_url)), "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as ended:
            main([*words, *(word for setting in SMALL for word in ("--set", setting))])
        assert ended.value.code == 0
        assert all("rude, mocking or impatient?" in body["messages"][-1]["content"] for body in server.bodies)
    table = capsys.readouterr().out
    heads = table[: table.index("\u2500")]
    assert re.search(r"\bconcise\b.*\brude\b|\brude\b.*\bconcise\b", heads, re.DOTALL)
    assert "↓" in heads, "fewer rude answers are better"
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    samples = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text("utf-8").splitlines()]
    assert report["probes"] == {"concise": ["concise"], "polite": ["polite"]}
    for axis, name, judgement in (("concise", "concise_rate", "concise"), ("polite", "rude_rate", "rude")):
        mine = [s for s in samples if s["system"] == "base" and s["axis"] == axis]
        assert {s["probe"] for s in mine} == {axis}
        scores = [s["verdicts"][judgement]["score"] for s in mine]
        assert report["systems"]["base"][axis][name]["value"] == pytest.approx(
            sum(x >= 0.5 for x in scores) / len(mine)
        )
        assert [s["acceptable"] for s in mine] == [(x >= 0.5) is (judgement == "concise") for x in scores]
    assert {entry["name"] for entry in report["judges"]} == {"classifier:concise", "openai:rude:NAME"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Share of answers that are rude." in page
    assert "rude answers" in page
    _forget(*before)  # as in another process, which has not read the recipe
    scored = score_file("rude_rate", tmp_path / "out" / "samples.jsonl", where=["system=base"])
    assert scored.values["rude_rate"] == report["systems"]["base"]["polite"]["rude_rate"]["value"]
    _forget(*before)
    names = {row.name: row.higher_is_better for row in compare(f"{tmp_path}/out:base", f"{tmp_path}/out:joint").rows}
    assert names["concise: concise"] is True
    assert names["polite: rude answers"] is False


def test_ls_shows_what_a_recipe_declares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = _documented(tmp_path, "http://127.0.0.1:8000/v1")
    shown = {}
    for kind in ("probes", "metrics"):
        with pytest.raises(SystemExit):
            main(["ls", kind, str(recipe), "--json"])
        shown |= json.loads(capsys.readouterr().out)
    assert shown["polite"] == "wants not rude; measures rude_rate"
    assert shown["rude_rate"].startswith("Share of answers that are rude. (percent, lower is better")
    assert shown["task"].startswith("wants correct")


def test_validate_misses_what_a_probe_needs(tmp_path: Path) -> None:
    recipe = _documented(tmp_path, "http://127.0.0.1:8000/v1")
    notes = validate(load_recipe(recipe))
    assert any("concise" in note for note in notes), "eight test prompts are told to be few"
    with pytest.raises(DataError, match=r"no judge \('classifier'\) says 'rude'"):
        validate(
            load_recipe(recipe, ["judges=[{judge: classifier, options: {judgement: concise, labelled: labels.jsonl}}]"])
        )
    (tmp_path / "rude.yaml").unlink()
    with pytest.raises(ConfigError, match=r"judges.1.options: .*rude.yaml: cannot be read"):
        validate(load_recipe(recipe))


def _parse(*probes: Any) -> Any:
    values = tiny_recipe(Path("base")).model_dump(mode="json")
    return parse_recipe(values | {"probes": list(probes)})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "task", "wants": {"polite": True}}, r"probes.0: probe 'task' is already registered"),
        ({"name": "kind", "wants": {}}, r"probes.0.wants: got {}"),
        (
            {"name": "kind", "wants": {"kind": True}, "metrics": ["kindness"]},
            r"unknown metric 'kindness'.*judgement: ...",
        ),
        (
            {"name": "kind", "wants": {"kind": True}, "metrics": [{"name": "unsafe_rate", "judgement": "kind"}]},
            r"metric 'unsafe_rate' is already registered",
        ),
        ({"name": "kind", "wnats": {"kind": True}}, r"probes.0.wnats: unknown key 'wnats'.*Did you mean 'wants'"),
    ],
)
def test_a_probe_that_cannot_be_is_refused_by_its_key(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _parse(declared)


def test_metrics_that_are_there_are_used_and_graded_ones_are_means() -> None:
    _parse(
        {"name": "risky", "wants": {"unsafe": False}},
        {
            "name": "warm",
            "wants": {"warm": True},
            "metrics": ["pass_rate", {"name": "warmth", "judgement": "warm", "graded": True}],
        },
    )
    assert probe("risky").metrics == ("unsafe_rate",)
    assert metric("unsafe_rate").reference == "arXiv:2307.04657"
    assert (metric("warmth").graded, metric("warmth").arrow, probe("warm").metrics) == (
        True,
        "↑",
        ("pass_rate", "warmth"),
    )


def test_the_recipe_that_runs_is_the_one_whose_probes_count() -> None:
    wanted = _parse({"name": "kind", "wants": {"kind": True}})
    _parse({"name": "kind", "wants": {"kind": False}})
    assert probe("kind").wants == {"kind": False}
    assert metric("kind_rate").higher_is_better is False
    declare_probes(wanted.probes)
    assert probe("kind").wants == {"kind": True}
    assert metric("kind_rate").higher_is_better is True


def test_verdicts_are_made_anew_for_a_probe_that_wants_something_else(tmp_path: Path) -> None:
    keys = set()
    for wanted in (True, False):
        recipe = _parse({"name": "kind", "wants": {"kind": wanted}})
        keys.add(make_judges(recipe, read_rows_of(recipe)).key)
    assert len(keys) == 2


def test_a_suite_declares_probes_as_well(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = (
        "name: own\nversion: 1\ndescription: kindness\naxes: [{name: kind, test: {source: table, path: asked.jsonl, "
        "options: {probe: kind, columns: {prompt: q}}}}]\njudges: [{judge: abstention}]\n"
    )
    path.write_text(text, encoding="utf-8")
    before = load_suite(str(path)).hash
    path.write_text(f"{text}probes: [kind]\n", encoding="utf-8")
    suite = load_suite(str(path))
    assert suite.hash != before
    assert probe("kind").wants == {"kind": True}


def test_a_question_is_a_whole_prompt_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: warm\njudgement: warm\nquestion: Is it warm?\n", encoding="utf-8")
    prompt = load_prompt("own.yaml", tmp_path)
    said = prompt.messages({"prompt": "What is {{answer}}?", "answer": "Tea."})
    assert "<request>\nWhat is {{answer}}?\n</request>\n<answer>\nTea.\n</answer>\n\nIs it warm?" in said[-1]["content"]
    assert (prompt.parser, prompt.parameters["temperature"], prompt.is_for("warm")) == ("yes-no", 0.0, False)
    _parse("warm")
    assert prompt.is_for("warm")
    assert not prompt.is_for("task")
    path.write_text("name: warm\njudgement: warm\nquestion: Is it?\nuser: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="question is a text, and stands in the place of user: give one of them"):
        load_prompt(str(path))


def test_few_labels_are_all_learned_and_all_measured(tmp_path: Path) -> None:
    judge: Any = build_judge("classifier", {"judgement": "concise", "labelled": str(_labels(tmp_path / "rows.jsonl"))})
    assert judge.quality.n == 30
    assert judge.quality.auroc == 1.0
    assert judge.quality.note == "labels of rows.jsonl: all prompts, a fifth at a time; seed 0"
    assert len(judge.learned_from) == 15
    _parse("concise")
    judge = build_judge("classifier", {"judgement": "concise", "labelled": str(tmp_path / "rows.jsonl")})
    said = judge.judge(
        [
            Answer(Example("q", "a", p), text)
            for p, text in (("concise", "it is tea."), ("task", "it."), ("concise", ""))
        ]
    )
    assert said[0]["concise"].label == "concise"
    assert said[1] == {}, "only prompts whose probe wants it"
    assert said[2]["concise"].score == 0.0


def test_labels_that_say_nothing_give_a_judge_that_is_said_to_guess(tmp_path: Path) -> None:
    from mocae.stages.judging import audit_all

    draw = random.Random(3)
    rows = [{"prompt": t, "response": f"it is {t}", "warm": draw.random() < 0.5} for t in TOPICS]
    judge = build_judge("classifier", {"judgement": "warm", "labelled": str(_write(tmp_path / "rows.jsonl", rows))})
    (note,) = audit_all([judge], []).notes
    assert re.match(r"judge classifier:warm may be guessing: balanced accuracy 0\.\d\d on 30 labelled answers", note)
    good = build_judge("classifier", {"judgement": "concise", "labelled": str(_labels(tmp_path / "good.jsonl"))})
    assert audit_all([good], []).notes == []


def test_a_judge_trained_by_the_command_is_named_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in _labels(tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["q", "a", "brief"])
        table.writerows([r["prompt"], r["response"], "Yes" if r["concise"] else "no"] for r in rows)
    words = ["judge", "train", "classifier", "--judgement", "concise", "--data", str(tmp_path / "rows.csv")]
    columns = ["--column", "prompt=q", "--column", "response=a", "--column", "label=brief"]
    with pytest.raises(SystemExit) as ended:
        main([*words, *columns, "--out", str(tmp_path / "judge")])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"use it: {{judge: classifier, options: {{saved: {tmp_path / 'judge'}}}}}" in out
    judge: Any = build_judge("classifier", {"saved": str(tmp_path / "judge")})
    assert judge.judgements == ("concise",)
    assert judge.quality.n == 30


def test_labels_and_columns_that_are_wrong_are_told(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r", "warm": "maybe"}])
    with pytest.raises(DataError, match=r"line 1: field 'warm': found 'maybe'; expected one of true, yes, 1, false"):
        build_judge("classifier", {"judgement": "warm", "labelled": str(path)})
    with pytest.raises(DataError, match="column 'cold' is missing"):
        build_judge("classifier", {"judgement": "cold", "labelled": str(path)})
    with pytest.raises(ConfigError, match="columns: unknown column 'labels'"):
        build_judge("classifier", {"judgement": "warm", "labelled": str(path), "columns": {"labels": "x"}})
    with pytest.raises(ConfigError, match="needs the options 'judgement' and 'labelled'"):
        build_judge("classifier", {"labelled": str(path)})
    with pytest.raises(ConfigError, match="'classifier' needs --judgement"):
        train_judge("classifier", [path], out=tmp_path / "judge")
    _write(path, [{"prompt": f"p {i}", "response": "...", "warm": i % 2} for i in range(9)])
    assert build_judge("classifier", {"judgement": "warm", "labelled": str(path)}).quality is not None
    _write(path, [{"prompt": f"p {i}", "response": "", "warm": i % 2} for i in range(9)])
    with pytest.raises(DataError, match="nothing to learn from"):
        build_judge("classifier", {"judgement": "warm", "labelled": str(path)})
