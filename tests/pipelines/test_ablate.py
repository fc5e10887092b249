"""A recipe over seeds and settings, on a tiny random base model."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mocae.cli import main
from mocae.config import dump_recipe, load_recipe
from mocae.errors import ConfigError
from mocae.pipelines.ablation.ablate import Ablation, ablate
from run_for_tests import AXES, tiny_base, tiny_recipe

VARY = "axes.*.train.options.conflict=0.5"
SYSTEMS = ["uniform", "alignx", "joint"]


@dataclass(frozen=True)
class Made:
    """A finished ablation."""

    recipe: Path
    out: Path
    found: Ablation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("ablation")
    recipe = root / "tiny.yaml"
    small = tiny_recipe(tiny_base(root / "base"), "experts.optimizer.batch_size=12", "generation.max_new_tokens=2")
    recipe.write_text(dump_recipe(small), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
        found = ablate(recipe, out=root / "out", seeds=2, vary=[VARY], systems=SYSTEMS, progress=False)
    return Made(recipe, root / "out", found)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every step of a run that costs time fail."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    for name in (
        "training.finetune",
        "answers.examine",
        "answers.examine_chosen",
        "fitting.examine",
        "fitting.fit_router",
    ):
        monkeypatch.setattr(f"mocae.stages.{name}", forbidden)
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)


def test_schema(made: Made) -> None:
    result = json.loads(made.found.json_path.read_text(encoding="utf-8"))
    assert result == json.loads(json.dumps(made.found.result))
    assert set(result) == {"schema", "recipe", "seeds", "vary", "settings", "notes", "environment"}
    assert (result["schema"], result["seeds"]) == (2, [0, 1])
    assert result["vary"] == {"axes.*.train.options.conflict": ["0.5"]}
    assert list(result["settings"]) == ["conflict=0.5"]
    for setting in result["settings"].values():
        keys = {"values", "systems", "differences", "parts", "left_out", "updates", "forgetting", "collapse"}
        assert set(setting) == keys | {"headroom"}
        assert setting["left_out"] == {}
        assert 0 <= setting["headroom"]["mean"] <= 1
        assert set(setting["systems"]) == {"base", *(f"expert:{axis}" for axis in AXES), *SYSTEMS}
        assert set(setting["differences"]) == {"alignx", "joint"}
        assert set(setting["differences"]["joint"]) == set(setting["systems"]) - {"joint"}
        assert set(setting["forgetting"]) == {"0", "1"}
        for entry in setting["systems"].values():
            measured = {"mean_axis_score", "axis_scores", "average_alignment_score", "seconds"}
            assert set(entry) - {"routing"} == measured | {"about", "plain", "upper_bound", "one_adapter"}
            assert set(entry["axis_scores"]) == set(AXES)
            wanted = {
                "over_random",
                "over_best",
                "ece",
                "brier",
                "misrouted_rate",
                "regret",
                "entropy",
                "largest_share",
            }
            assert set(setting["systems"]["alignx"]["routing"]) == wanted
        assert "routing" not in setting["systems"]["joint"]


def test_spreads_are_those_of_the_runs(made: Made) -> None:
    for name, setting in made.found.result["settings"].items():
        reports = [json.loads((made.out / name / f"seed-{seed}" / "report.json").read_text()) for seed in (0, 1)]
        for system, entry in setting["systems"].items():
            values = [report["systems"][system]["mean_axis_score"]["value"] for report in reports]
            spread = entry["mean_axis_score"]
            assert spread["values"] == values
            assert spread["mean"] == pytest.approx(sum(values) / 2)
            assert spread["std"] == pytest.approx(statistics.stdev(values))


def test_settings_and_seeds_reach_the_runs(made: Made) -> None:
    for seed in (0, 1):
        recipe = load_recipe(made.out / "conflict=0.5" / f"seed-{seed}" / "recipe.yaml")
        assert recipe.seed == seed
        assert [axis.train[0].options["conflict"] for axis in recipe.axes] == [0.5] * 3


def test_differences_are_paired_with_the_rival(made: Made) -> None:
    for setting in made.found.result["settings"].values():
        difference = setting["differences"]["joint"]["alignx"]
        assert setting["differences"]["alignx"]["joint"]["value"] == pytest.approx(-difference["value"])
        assert difference["low"] <= difference["value"] <= difference["high"]


def test_table_and_plot(made: Made) -> None:
    table = made.found.table_path.read_text(encoding="utf-8")
    head = "| system | mean over axes | helpfulness | harmlessness | honesty | ECE | minus alignx | minus joint |"
    assert head in table
    assert "### conflict=0.5" in table
    entry = made.found.result["settings"]["conflict=0.5"]["systems"]["alignx"]["mean_axis_score"]
    assert f"| alignx | {entry['mean']:.3f} ± {entry['std']:.3f} |" in table
    assert "<svg" in made.found.plot_path.read_text(encoding="utf-8")
    assert {path.name for path in made.out.iterdir()} == {
        *(
            "ablation.html",
            "ablation.json",
            "ablation.md",
            "ablation.svg",
            "conflict=0.5",
            ".lock",
            ".mocae.json",
            ".stages",
        )
    }


@pytest.mark.usefixtures("no_work")
def test_a_second_call_makes_no_new_run(made: Made) -> None:
    again = ablate(made.recipe, out=made.out, seeds=2, vary=[VARY], systems=SYSTEMS, progress=False)
    assert again.result["settings"] == made.found.result["settings"]


@pytest.mark.usefixtures("no_work")
def test_the_command_says_where_the_results_lie(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", str(made.recipe), "--out", str(made.out), "--seeds", "2", "--vary", VARY, "--no-progress"]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--systems", ",".join(SYSTEMS)])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Seeds [0, 1]." in out
    assert f"results: {made.out / 'ablation.json'}" in out
    assert f"plot:    {made.out / 'ablation.svg'}" in out


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_are_refused(made: Made, tmp_path: Path, seeds: int) -> None:
    with pytest.raises(ConfigError, match=f"--seeds is {seeds}; at least 1 is needed"):
        ablate(made.recipe, out=tmp_path, seeds=seeds)


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["experts.r"], "--vary experts.r: not a sweep. Accepted: key=v1,v2"),
        (["experts.r="], "--vary experts.r=: not a sweep"),
        (["=1,2"], "--vary =1,2: not a sweep"),
        (["experts.r=1,,2"], "--vary experts.r=1,,2: not a sweep"),
        (["seed=1,2"], "--vary seed=1,2: seeds are swept by --seeds"),
        (["experts.r=2,2"], "two settings would share the folder 'r=2'"),
        (["experts.rank=2,4"], "rank"),
        (["axes.*.trian.options.conflict=0,1"], "trian"),
        (["axes.kindness.train.options.conflict=0,1"], "kindness"),
        (["axes.*.train.options.conflct=0,1"], "tiny.yaml: conflct=0, seed 0: axes.helpfulness.train.0.options: "),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_a_sweep_that_does_not_fit_is_refused(made: Made, tmp_path: Path, vary: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ablate(made.recipe, out=tmp_path / "out", seeds=1, vary=vary, progress=False)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("vary", "folders"),
    [
        (["experts.r=2,4", "features.k=8,16"], ["r=2-k=8", "r=2-k=16", "r=4-k=8", "r=4-k=16"]),
        (["data_root=../one,two"], ["data_root=.._one", "data_root=two"]),
    ],
)
def test_a_grid_has_a_folder_for_each_point(
    made: Made, tmp_path: Path, vary: list[str], folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    folder = made.out / "conflict=0.5" / "seed-0"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    samples = (folder / "samples.jsonl").read_text(encoding="utf-8")

    def ran(_recipe: Any, *, out: Path, **_: Any) -> None:
        asked.append(out)
        out.mkdir(parents=True)
        (out / "samples.jsonl").write_text(samples, encoding="utf-8")
        notes = ["tiny", *(["collapsed"] if len(asked) == 1 else [])]
        (out / "report.json").write_text(json.dumps({**report, "notes": notes}), encoding="utf-8")

    monkeypatch.setattr("mocae.pipelines.ablation.runs.run", ran)
    found = ablate(made.recipe, out=tmp_path / "out", seeds=1, vary=vary, progress=False)
    assert found.result["notes"] == ["tiny", f"collapsed ({folders[0]}, seed 0)"]
    assert asked == [tmp_path / "out" / name / "seed-0" for name in folders]
