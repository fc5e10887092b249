from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mocae.pipelines.artifact
import mocae.pipelines.opening
import mocae.pipelines.run
from mocae.cli.ls import KINDS
from mocae.cli.tables import print_result
from mocae.errors import unknown_name

Command = Callable[..., tuple[int, str, str]]


def test_validate_says_ok(command: Command, recipe_file: Path) -> None:
    expected = (
        f"{recipe_file}: ok (2 axes: helpfulness, honesty; 3 systems)\n"
        "  helpfulness  20 train, 50 calibration, 50 test\n"
        "  honesty      20 train, 50 calibration, 50 test\n"
    )
    assert command("validate", str(recipe_file)) == (0, expected, "")


def test_validate_checks_and_counts_a_suite_too(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    test = "{source: table, path: rows.csv, options: {probe: benign, columns: {prompt: q}}}"
    head = "name: mine\nversion: 1\ndescription: mine\n"
    path.write_text(f"{head}axes: [{{name: polite, test: {test}}}]\njudges: [{{judge: refusal}}]\n", encoding="utf-8")
    (tmp_path / "rows.csv").write_text("q\nWhy?\nHow?\n", encoding="utf-8")
    words = ("validate", str(path), "--set", f"data_root={tmp_path}")
    assert command(*words) == (0, f"{path}: ok (a suite of 1 axes: polite)\n  polite  2 test\n", "")
    code, out, err = command(*words, "--set", "judges.0.judge=abstention", "--set", "axes.0.test.path=gone.csv")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: suite mine: axes.polite.test.0.path: no file '{tmp_path}/gone.csv'")
    code, _, err = command(*words, "--set", "judges.0.judge=abstention")
    assert code == 1
    assert err.startswith("error: suite mine: axes.polite.test: no judge ('abstention') says 'refusal' of 2 of its 2")


def test_validate_prints_notes_on_stderr(command: Command, recipe_file: Path) -> None:
    code, out, err = command("validate", str(recipe_file), "--set", "base.model=null")
    assert (code, err) == (0, "note: base.model: not set; a run needs --set base.model=... or MOCAE_BASE_MODEL\n")
    assert "3 systems)\n" in out


def test_validate_prints_one_line_a_problem(command: Command, recipe_file: Path) -> None:
    code, out, err = command(
        "validate", str(recipe_file), "--set", "systems.0=bas", "--set", "judges.0.judge=pockt", "--set", "seed=3"
    )
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 2)
    assert lines[0].startswith(f"error: {recipe_file}: judges.0.judge: unknown judge 'pockt'. Known: ")
    assert lines[1].startswith(f"error: {recipe_file}: systems.0.policy: unknown system 'bas'. Known: ")


SHAPE = "base.shape={model_type: llama, vocab_size: 50, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 3}"
PLAN = ("--set", "base.model=null", "--set", SHAPE, "--set", "base.shape.num_attention_heads=2")


def test_plan_prints_tables(command: Command, recipe_file: Path) -> None:
    code, out, err = command("plan", str(recipe_file), *PLAN)
    assert (code, err) == (0, "")
    assert "small: base.model not set, " in out
    assert "from base.shape" in out
    assert all(
        words in out for words in ("helpfulness", "honesty", "peak memory, training", "read per generated token")
    )


def test_plan_prints_json(command: Command, recipe_file: Path) -> None:
    code, out, _ = command("plan", str(recipe_file), *PLAN, "--json")
    made = json.loads(out)
    assert code == 0
    assert [expert["n_rows"] for expert in made["experts"]] == [20, 20]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "axes"])
def test_ls_lists_names_with_a_line_each(command: Command, kind: str) -> None:
    code, out, err = command("ls", kind, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert all(isinstance(text, str) and text for text in found.values())
    plain = command("ls", kind)[1].splitlines()
    assert [line.split()[0] for line in plain] == list(found)


def test_ls_axes_lists_those_of_a_recipe(command: Command, recipe_file: Path) -> None:
    assert json.loads(command("ls", "axes", str(recipe_file), "--json")[1]) == {"helpfulness": "", "honesty": ""}
    code, _, err = command("ls", "axes")
    assert code == 2
    assert "name it, as in `mocae ls axes pocket`" in err
    assert command("ls", "judges", str(recipe_file))[0] == 2
    assert command("ls", "axis") == (2, "", f"error: {unknown_name('kind', 'axis', KINDS)}\n")


def test_ls_tells_the_options_of_one(command: Command) -> None:
    told = json.loads(command("ls", "judges", "safety-classifier", "--json")[1])
    assert told["saved"].startswith("Path | None, default None: folder")
    assert "exclude_prompts" not in told
    assert "Most experts a prompt uses" in command("ls", "systems", "alignx")[1]
    assert command("ls", "judges", "pocket")[1] == "pocket has no options\n"
    code, _, err = command("ls", "judges", "refusl")
    assert (code, "unknown judge 'refusl'" in err, "Did you mean 'refusal'?" in err) == (2, True, True)
    assert command("ls", "merges", "ties")[0] == 2
    assert "judged by refusal, safety-classifier" in command("ls", "suites")[1]


def test_merges_are_told_in_words_not_in_docstrings(command: Command) -> None:
    told = json.loads(command("ls", "merges", "--json")[1])
    assert told["task-arithmetic"] == "the sum of weight * task vector, exact: ranks add up [arXiv:2212.04089]"
    assert [text for text in told.values() if text.startswith("Return")] == []


def test_export_refuses_another_form(command: Command) -> None:
    code, _, err = command("export", "out", "--to", "ggfu", "--out", "x")
    assert (code, err.endswith("Did you mean 'gguf'?\n")) == (2, True)


def test_plan_says_which_shapes_it_does_not_use(command: Command, recipe_file: Path) -> None:
    words = (
        "--set",
        "base.model=pocket",
        "--set",
        "base.shape.hidden_size=4096",
        "--set",
        "base.shape.vocab_size=1536",
    )
    code, _, err = command("plan", str(recipe_file), *words)
    assert code == 0
    assert err.startswith("note: base.shape.hidden_size: not used; the config of 'pocket' is here and says otherwise")


REPORT = {
    "recipe": {"name": "small", "axes": [{"name": "helpfulness"}, {"name": "harmlessness"}]},
    "probes": {"helpfulness": ["task"], "harmlessness": ["harmful"]},
    "systems": {
        "base": {"mean_axis_score": {"value": 0.4, "low": 0.35, "high": 0.45, "n": 10}},
        "alignx": {
            "mean_axis_score": {"value": 0.9, "low": None, "high": None, "n": 10},
            "helpfulness": {"pass_rate": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 5}},
            "harmlessness": {"unsafe_rate": {"value": None, "low": None, "high": None, "n": 0}},
        },
    },
}


@dataclass
class FakeRun:
    """Stands in for the pipeline and keeps what it was called with."""

    folder: Path
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, recipe: object, **arguments: Any) -> Any:
        self.calls.append({"recipe": recipe, **arguments})
        report_path = self.folder / "report.json"
        report_path.write_text(json.dumps(REPORT), encoding="utf-8")
        return mocae.pipelines.run.RunResult(REPORT, report_path, self.folder / "report.html")


@pytest.fixture
def fake_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun(tmp_path)
    monkeypatch.setattr("mocae.pipelines.run.run", fake)
    return fake


def test_run_calls_the_pipeline_and_prints_the_systems(
    command: Command, recipe_file: Path, fake_run: FakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--set", "experts.r=3", "--systems", "base, alignx", "--no-progress")
    monkeypatch.setenv("COLUMNS", "140")  # wide enough for the intervals
    code, out, _ = command("run", str(recipe_file), "--out", str(tmp_path / "out"), *words)
    assert code == 0
    (call,) = fake_run.calls
    assert call["recipe"].experts.r == 3
    assert (call["out"], call["systems"], call["progress"]) == (tmp_path / "out", ["base", "alignx"], False)
    lines = [line.strip() for line in out.splitlines()]
    rows = [re.split(r"\s{2,}", line) for line in lines if line.startswith(("base", "alignx"))]
    assert rows[:2] == [["base", "40.0 ± 5.0", "-"], ["alignx", "90.0", "50.0 ± 10.0"]]
    assert ["system", "n 10", "n 5"] in [re.split(r"\s{2,}", line) for line in lines]
    assert "alignx answers best: 90.0 %" in out
    assert f"report: {tmp_path / 'report.html'}" in out


def test_the_table_names_the_figures_of_honesty(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("unanswerable_accuracy", "answerable_accuracy", "honesty_rate", "mc1", "mc2")
    figures = {name: {"value": 0.1 * i, "low": None, "high": None, "n": 9} for i, name in enumerate(names, 1)}
    report = {"recipe": {"name": "honesty", "axes": [{"name": "honesty"}]}, "systems": {"m": {"honesty": figures}}}
    print_result(report, Path("report.html"), Console(width=120))
    out = capsys.readouterr().out
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["m"])
    assert row == ["m", "10.0", "20.0", "30.0", "40.0", "50.0"]
    assert all(word in out for word in ("unans-", "honest", "MC1", "MC2"))


def test_run_prints_json(command: Command, recipe_file: Path, fake_run: FakeRun) -> None:
    code, out, _ = command("run", str(recipe_file), "--out", "x", "--json")
    assert (code, json.loads(out)) == (0, REPORT)
    assert fake_run.calls[0]["systems"] is None


def test_run_checks_the_recipe_first(command: Command, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = command("run", str(recipe_file), "--out", str(out), "--set", "prompt_format=plane")
    assert code == 2
    assert err.startswith(f"error: {recipe_file}: prompt_format: unknown prompt format 'plane'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "RECIPE", "--out", "x"), "stopped; what is finished is kept, and the same command goes on with it"),
        (("validate", "RECIPE"), "stopped"),
    ],
)
def test_ctrl_c_says_that_the_same_command_goes_on(
    command: Command, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mocae.pipelines.check.load_checked", interrupted)
    code, out, err = command(*(str(recipe_file) if word == "RECIPE" else word for word in words))
    assert (code, out, err) == (130, "", f"\n{said}\n")


def test_a_page_or_figure_of_somebody_else_is_not_written_over(command: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>mine</p>", encoding="utf-8")
    for words in (("compare", "a", "b", "--out", str(page)), ("bench", "--config", "tiny", "--json", str(page))):
        code, out, err = command(*words)
        assert (code, out) == (1, "")
        assert "page.html: is there and mocae did not write it" in err
    assert page.read_text(encoding="utf-8") == "<p>mine</p>"


@pytest.mark.parametrize("systems", ["", "base,,alignx"])
def test_run_refuses_empty_names(command: Command, recipe_file: Path, fake_run: FakeRun, systems: str) -> None:
    code, _, err = command("run", str(recipe_file), "--out", "x", "--systems", systems)
    assert (code, fake_run.calls) == (2, [])
    assert err.startswith(f"error: --systems {systems!r}: an empty name.")


@pytest.mark.parametrize("words", [("serve", "DIR"), ("ui", "DIR"), ("ablate", "RECIPE", "--out", "x")])
def test_more_threads_than_processors_are_refused(command: Command, words: tuple[str, ...]) -> None:
    code, _, err = command(*words, "--threads", "100000")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --threads 100000: this machine has ")


class FakeModel:
    """Answers with what it was asked."""

    def __init__(self, system: str | None) -> None:
        self.asked, self.system = system, system or "alignx"

    def reply(self, prompt: str, **words: object) -> Any:
        said = {word: given for word, given in words.items() if given}
        sure = {"alignx": (0.25, 0.5), "strange": (0.25, 0.97)}.get(str(self.asked), (None, None))
        weights = {} if self.asked == "joint" else {"helpfulness": 0.25, "honesty": 0.75}
        return mocae.pipelines.artifact.Reply(f"{prompt}|{said}|{self.asked}", weights, *sure)


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.pipelines.artifact.refuse_unusable", lambda *_, **__: None)
    monkeypatch.setattr("mocae.pipelines.artifact.load", lambda _, system: FakeModel(system))
    told = mocae.pipelines.opening.Opening("knows rivers.", ("Name one.", "Name two."))
    monkeypatch.setattr("mocae.pipelines.opening.opening", lambda *_: told)


@pytest.mark.usefixtures("fake_model")
def test_chat_answers_one_prompt(command: Command) -> None:
    words = ("--at-least", "honesty=0.5", "--at-most", "harmlessness=0", "--prefer", "helpfulness=-0.5")
    words += ("--steer", "honesty=2", "--steer", "helpfulness=3", "--system", "linear", "--show-routing")
    code, out, err = command("chat", "out", "--prompt", "Hello?", *words)
    assert (code, err) == (0, "")
    said = {
        "at_least": {"honesty": 0.5},
        "at_most": {"harmlessness": 0.0},
        "prefer": {"helpfulness": -0.5},
        "steer": {"honesty": 2.0, "helpfulness": 3.0},
    }
    assert out == f"Hello?|{said}|linear\n[helpfulness 0.25, honesty 0.75]\n"


@pytest.mark.usefixtures("fake_model")
def test_chat_says_how_sure_the_router_is(command: Command) -> None:
    _, out, _ = command("chat", "out", "--prompt", "Hello?", "--system", "alignx", "--show-routing")
    sure = "right with a chance of 0.25; less usual than 50 % of the calibration prompts"
    assert out.splitlines()[-1] == f"[helpfulness 0.25, honesty 0.75; {sure}]"
    _, out, _ = command("chat", "out", "--prompt", "Hello?", "--system", "joint", "--show-routing")
    assert out.splitlines()[-1] == "[no routing: this system is one model]"


@pytest.mark.usefixtures("fake_model")
def test_chat_answers_lines_until_an_empty_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\nthree\n"))
    code, out, err = command("chat", "out")
    assert (code, out) == (0, "one|{}|None\ntwo|{}|None\n")  # answers alone
    assert err.splitlines() == ["knows rivers.", "  try: Name one.", "  try: Name two."]


@pytest.mark.usefixtures("fake_model")
def test_chat_says_when_a_prompt_is_out_of_its_world(command: Command) -> None:
    _, out, err = command("chat", "out", "--prompt", "Hello?", "--system", "knn")
    assert (out, err) == ("Hello?|{}|knn\n", "")
    _, out, err = command("chat", "out", "--prompt", "Hello?", "--system", "strange")
    assert out == "Hello?|{}|strange\n"
    assert err.startswith("[out of its world: less usual than 97 % of the calibration prompts")


@pytest.mark.usefixtures("fake_model")
@pytest.mark.parametrize("steer", ["honesty", "honesty=", "=2", "honesty=much", "honesty=nan", "honesty=inf"])
def test_chat_refuses_what_is_no_number(command: Command, steer: str) -> None:
    code, _, err = command("chat", "out", "--prompt", "x", "--at-most", steer)
    assert code == 2
    assert err == f"error: --at-most {steer!r}: not of the form axis=number, as in --at-most honesty=0.5\n"


@pytest.mark.usefixtures("fake_model")
def test_chat_refuses_an_axis_twice(command: Command) -> None:
    code, _, err = command("chat", "out", "--prompt", "x", "--steer", "honesty=1", "--steer", "honesty=2")
    assert (code, err) == (2, "error: --steer 'honesty=2': 'honesty' is there twice; give each once\n")


@pytest.mark.usefixtures("fake_model")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--at-least", "honesty=2"), "at_least.honesty: got 2.0; it should be less than or equal to 1"),
        (("--at-least", "honesty=0.6", "--at-least", "helpfulness=0.6"), "the shares sum to 1.2; accepted: at most 1"),
        (("--steer", "honesty=-1"), "steer.honesty: got -1.0; it should be greater than or equal to 0"),
    ],
)
def test_chat_refuses_shares_that_nothing_can_have(command: Command, words: tuple[str, ...], message: str) -> None:
    code, _, err = command("chat", "out", "--prompt", "x", *words)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("words", [("out/a",), ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m")])
def test_eval_refuses_a_format_that_would_be_ignored(command: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, out, err = command("eval", *words, "--out", str(tmp_path / "out"), "--format", "chat")
    assert (code, out) == (2, "")
    assert err.startswith("error: eval: --format chat is for --model alone: ")


def test_eval_refuses_an_unknown_format_before_it_loads_the_model(command: Command, tmp_path: Path) -> None:
    code, _, err = command("eval", "--model", "nosuch", "--out", str(tmp_path / "out"), "--format", "chatt")
    assert code == 2
    assert err.startswith("error: unknown prompt format 'chatt'. Known: ")
