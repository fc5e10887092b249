from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import mocae
from mocae.bank import ExpertBank
from mocae.config import dump_recipe, load_recipe
from mocae.errors import ArtifactError, ConfigError, DataError, MocaeError
from mocae.evaluation import answering, read_samples
from mocae.models import load_base
from mocae.pipelines.run import run, train_expert
from mocae.stages.run import Run
from run_for_tests import AXES, SYSTEMS, tiny_recipe
from tiny import random_ids, with_peft

NAMES = [system if isinstance(system, str) else system["name"] for system in SYSTEMS]
N_TEST = 9


def test_a_run_that_could_not_draw_its_report_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, finished: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("mocae.extras._is_there", lambda module: module != "matplotlib")
    with pytest.raises(ConfigError, match=r"matplotlib is not installed; run: pip install 'mocae\[eval\]'"):
        run(finished.recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def assert_same_numbers(report: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Compare the systems and policies of a report with those of the whole run, all but what the clock says."""
    assert report["systems"]
    for name, entry in report["systems"].items():
        assert {**entry, "cost": None} == {**whole["systems"][name], "cost": None}, name
    for name, entry in report["routing"].items():
        assert entry == whole["routing"][name]
    assert {**report["counts"], "unscored": None} == {**whole["counts"], "unscored": None}


def estimates(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every rate of a report with its place."""
    if isinstance(value, dict):
        if "low" in value and "confidence" not in value:
            yield path, value
        else:
            for key, inner in value.items():
                yield from estimates(inner, f"{path}.{key}")


def test_the_report_has_the_schema_of_version_1(finished: Any) -> None:
    report = finished.result.report
    assert report == json.loads((finished.out / "report.json").read_text(encoding="utf-8"))
    assert set(report) == {
        *("schema", "recipe", "systems", "routing", "forgetting", "comparisons", "judges", "examples", "counts"),
        *("notes", "environment", "collapse", "updates", "constants", "probes", "headroom"),
    } | (set(report) & {"warnings"})
    assert report["schema"] == 1
    assert list(report["systems"]) == NAMES
    for entry in report["systems"].values():
        means = {"axis_scores", "mean_axis_score", "average_alignment_score", "win_rate_against"}
        roles = {"about", "policy", "plain", "upper_bound", "one_adapter", "uses_verdicts"}
        assert set(entry) == {*AXES, *means, *roles, "kinds", "cost"}
        assert set(entry["helpfulness"]) == {"win_rate", "pass_rate"}
        assert set(entry["harmlessness"]) == {"unsafe_rate", "over_refusal_rate", "pass_rate"}
        expected = {"truthful_rate", "informative_rate", "truthful_informative", "pass_rate"}
        assert set(entry["honesty"]) == expected
        assert set(entry["axis_scores"]) == set(AXES)
        assert {"seconds", "tokens_per_second", "peak_memory_bytes", "parameters", "trained_parameters"} <= set(
            entry["cost"]
        )
    assert set(report["routing"]) == {"linear", "alignx"}
    for entry in report["routing"].values():
        rates = {"entropy", "largest_share", "ece", "brier", "misrouted_rate", "regret", "confidence", "novel_rate"}
        rates |= {"over_random", "over_best"}
        assert set(entry) == {*rates, "reliability", "weights_by_kind"}
        assert all(entry[rate]["n"] > 0 for rate in rates - {"novel_rate"})
        assert set(entry["reliability"][0]) == {"low", "high", "confidence", "accuracy", "n"}
        assert all(sum(row.values()) == pytest.approx(1, abs=1e-3) for row in entry["weights_by_kind"].values())
    forgetting = report["forgetting"]
    assert forgetting["stages"] == ["base", AXES[0], f"+{AXES[1]}", f"+{AXES[2]}"]
    assert [len(row) for row in forgetting["matrix"]] == [3] * 4
    assert set(forgetting["forgetting"]) == set(AXES)
    assert report["comparisons"]["against"] == "joint"
    assert set(report["comparisons"]["differences"]) == set(NAMES) - {"joint"}
    lead = report["comparisons"]["lead"]
    assert set(lead["over"]) == set(NAMES) - {lead["system"]}
    assert lead["system"] != "oracle"
    assert set(report["headroom"]) == {"headroom", "oracle", "best", "best_system", "n_verdicts"}
    assert report["headroom"]["best_system"] in {f"expert:{axis}" for axis in AXES}
    assert report["headroom"]["n_verdicts"] == 3 * sum(report["counts"]["calibration"].values())
    assert report["counts"]["test"] == dict.fromkeys(AXES, N_TEST)
    examples = report["examples"]  # one for each kind of prompt: tasks, harmful, harmless, three kinds of question
    assert len(examples) == 6
    assert all(set(example["answers"]) == set(NAMES) for example in examples)
    assert all(set(answer) == {"text", "weights", "acceptable"} for e in examples for answer in e["answers"].values())


def test_every_rate_has_value_low_high_and_n(finished: Any) -> None:
    found = dict(estimates(finished.result.report))
    assert len(found) > 100
    for place, estimate in found.items():
        assert set(estimate) == {"value", "low", "high", "n"}, place
        if estimate["value"] is not None and estimate["low"] is not None:
            assert estimate["low"] - 1e-9 <= estimate["value"] <= estimate["high"] + 1e-9, place
            assert -1 <= estimate["low"] <= estimate["high"] <= 1, place


def test_judges_and_unscored_answers_are_counted(finished: Any) -> None:
    report = finished.result.report
    (judge,) = report["judges"]
    samples = list(read_samples(finished.out / "samples.jsonl"))
    verdicts = [verdict for sample in samples for verdict in sample.verdicts.values()]
    assert (judge["name"], judge["quality"], judge["n_verdicts"]) == ("coin", None, len(verdicts))
    assert judge["n_unscored"] == sum(verdict.score is None for verdict in verdicts) > 0
    assert report["counts"]["unscored"] == sum(sample.acceptable is None for sample in samples) > 0


def test_every_answer_is_kept(finished: Any) -> None:
    samples = list(read_samples(finished.out / "samples.jsonl"))
    assert Counter(sample.system for sample in samples) == dict.fromkeys(NAMES, 3 * N_TEST)
    weights = {name: [s.answer.weights for s in samples if s.system == name] for name in NAMES}
    assert weights["base"] == weights["joint"] == weights["sequential"] == [None] * 27
    asked = {(s.answer.example.axis, s.answer.example.probe) for s in samples}
    assert {(axis, name) for axis, names in finished.result.report["probes"].items() for name in names} == asked
    assert weights["expert:honesty"] == [{"helpfulness": 0.0, "harmlessness": 0.0, "honesty": 1.0}] * 27
    assert weights["less honest"] == [{"helpfulness": 1.0, "harmlessness": 0.0, "honesty": -0.5}] * 27
    for name in ("linear", "alignx"):
        assert all(sum(row.values()) == pytest.approx(1, abs=1e-5) for row in weights[name])
        assert len({tuple(row.values()) for row in weights[name]}) > 1


def test_the_oracle_is_right_wherever_an_expert_is(finished: Any) -> None:
    right: dict[str, set[str]] = {name: set() for name in NAMES}
    for sample in read_samples(finished.out / "samples.jsonl"):
        if sample.acceptable:
            right[sample.system].add(sample.answer.example.id)
    reachable = set().union(*(right[f"expert:{axis}"] for axis in AXES))
    assert reachable <= right["oracle"]
    assert len(reachable) > max(len(right[f"expert:{axis}"]) for axis in AXES)


def test_costs_count_what_a_system_uses(finished: Any) -> None:
    costs = {name: entry["cost"] for name, entry in finished.result.report["systems"].items()}
    one = costs["expert:honesty"]["trained_parameters"]
    used = {name: cost["trained_parameters"] / one for name, cost in costs.items()}
    assert used == {
        **dict.fromkeys(NAMES, 3.0),
        **{f"expert:{axis}": 1.0 for axis in AXES},
        "base": 0.0,
        "less honest": 2.0,
    }
    n_base = costs["base"]["parameters"]
    assert all(cost["parameters"] == n_base + cost["trained_parameters"] for cost in costs.values())
    assert all(cost["tokens_per_second"] > 0 for cost in costs.values())


def test_the_folder_holds_the_artifact_and_no_rests(finished: Any) -> None:
    names = {path.name for path in finished.out.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("experts", "comparison", "router", "features", "outcomes", "answers", "collapse", "states"),
        *("outcomes.jsonl", "samples.jsonl", "report.json", "report.html", "README.md", "recipe.yaml", "manifest.json"),
        "seen.json",
    }
    assert not [path for path in finished.out.rglob("*") if path.suffix in (".pt", ".bin", ".pkl", ".partial")]
    assert not {".partial", ".work", ".stale"} & {path.name for path in finished.out.iterdir()}
    assert load_recipe(finished.out / "recipe.yaml") == finished.recipe
    assert finished.result.html_path.read_text(encoding="utf-8").startswith("<!doctype html>")
    outcomes = list(read_samples(finished.out / "outcomes.jsonl"))
    assert Counter(sample.system for sample in outcomes) == {f"expert:{axis}": 36 for axis in AXES}


def test_the_manifest_says_what_it_is(finished: Any) -> None:
    manifest = json.loads((finished.out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema"] == 1
    assert manifest["axes"] == list(AXES)
    assert manifest["base"]["model"] == str(finished.base)
    assert manifest["base"]["dtype"] == "float32"
    assert list(manifest["systems"]) == NAMES
    assert manifest["systems"]["alignx"]["stages"]["router"] == "router/alignx"
    assert manifest["systems"]["alignx"]["options"]["top_k"] == 1
    used = {folder for system in manifest["systems"].values() for folder in system["stages"].values()}
    assert set(manifest["stages"]) == used


def test_experts_are_plain_peft_adapters(finished: Any) -> None:
    base = load_base(str(finished.base), dtype="fp32", device="cpu")
    ids = random_ids(2, 7)
    for i, axis in enumerate(AXES):
        folder = finished.out / "experts" / axis
        assert str(finished.out) not in (folder / "adapter_config.json").read_text(encoding="utf-8")
        expected = with_peft(base.model, folder)(ids).logits
        bank = ExpertBank.attach(base.model, {name: finished.out / "experts" / name for name in AXES})
        with torch.no_grad(), bank.weights(torch.eye(3)[i]):
            found = base.model(ids).logits
        bank.detach()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, base.model(ids).logits, atol=1e-3)


def test_a_second_run_does_no_work_and_reports_the_same(finished: Any, copy: Path, work: Any) -> None:
    again = run(finished.recipe, out=copy, progress=False)
    assert (work.trained, work.asked, work.fitted) == ([], [], [])
    assert again.report == finished.result.report


def test_other_routing_refits_the_router_alone(finished: Any, copy: Path, work: Any) -> None:
    recipe = tiny_recipe(
        finished.base,
        "routing.calibration=temperature",
        "routing.temperature=1.5",
        "routing.calibrators.fractal_weight=0.1",
    )
    again = run(recipe, out=copy, systems=["linear", "alignx", "uniform"], progress=False, overwrite=True)
    assert work.trained == []
    assert work.asked == ["answers alignx"]
    assert work.fitted == [len([s for s in _judged_by_prompt(copy).values() if None not in s])]
    for name in set(again.report["systems"]) - {"alignx"}:
        assert again.report["systems"][name] == finished.result.report["systems"][name]
    assert again.report["routing"]["linear"] == finished.result.report["routing"]["linear"]
    assert again.report["routing"]["alignx"] != finished.result.report["routing"]["alignx"]


def test_answers_taken_from_experts_are_those_the_mixture_gives(finished: Any, copy: Path) -> None:
    answers, reused = {}, {}
    for reuse in ("true", "false"):
        recipe = tiny_recipe(finished.base, "generation.batch_size=2", f"generation.reuse={reuse}")
        run(recipe, out=copy, systems=["alignx"], progress=False, overwrite=True)
        samples = read_samples(copy / "answers" / "alignx" / "samples.jsonl")
        answers[reuse] = {s.answer.example.id: (s.answer.text, s.answer.weights, s.acceptable) for s in samples}
        reused[reuse] = json.loads((copy / "answers" / "alignx" / "cost.json").read_text(encoding="utf-8"))["reused"]
    assert answers["true"] == answers["false"]
    assert reused["true"]["n_prompts"] > 0
    assert reused["true"]["same"] == 1.0
    assert reused["false"] == {"n_prompts": 0, "same": None}


def _judged_by_prompt(folder: Path) -> dict[str, list[bool | None]]:
    found: dict[str, list[bool | None]] = {}
    for sample in read_samples(folder / "outcomes.jsonl"):
        found.setdefault(sample.answer.example.id, []).append(sample.acceptable)
    return found


def test_pruning_asks_again_and_fits_nothing(finished: Any, copy: Path, work: Any) -> None:
    run(
        tiny_recipe(finished.base, "routing.top_k=2"),
        out=copy,
        systems=["alignx", "linear"],
        progress=False,
        overwrite=True,
    )
    assert (work.trained, work.fitted) == ([], [])
    assert sorted(work.asked) == ["answers alignx", "answers linear"]
    routed = [s.answer.weights for s in read_samples(copy / "samples.jsonl") if s.system in ("alignx", "linear")]
    assert all(sorted(row.values())[0] == 0.0 < sorted(row.values())[1] for row in routed if row is not None)
    # The model that is loaded from the folder prunes too.
    for system in (None, "alignx", "linear"):
        reply = mocae.load(copy, device="cpu").reply("Repeat the word river.", system=system)
        assert [weight > 0 for weight in sorted(reply.weights.values())] == [False, True, True]


def test_other_test_prompts_ask_everybody_and_train_nothing(finished: Any, copy: Path, work: Any) -> None:
    setting = "axes.honesty.test.options.seed=5"
    run(tiny_recipe(finished.base, setting), out=copy, systems=["alignx"], progress=False, overwrite=True)
    assert (work.trained, work.fitted) == ([], [])
    assert sorted(work.asked) == sorted(f"answers {name}" for name in [*NAMES[:4], "alignx"])


def test_other_rows_of_one_axis_train_one_expert(finished: Any, copy: Path, work: Any) -> None:
    run(
        tiny_recipe(finished.base, "axes.honesty.train.options.seed=5"),
        out=copy,
        systems=["base"],
        progress=False,
        overwrite=True,
    )
    assert work.trained == ["expert honesty"]
    assert work.fitted == []


def test_the_order_of_axes_is_the_order_of_weights(finished: Any, copy: Path, work: Any) -> None:
    # The experts are the same; a router that was fitted for another order of them is not.
    turned = tuple(reversed(AXES))
    recipe = tiny_recipe(finished.base, axes=turned)
    run(recipe, out=copy, systems=["alignx"], progress=False, overwrite=True)
    assert work.trained == []
    assert len(work.fitted) == 1
    router = json.loads((copy / "router" / "alignx" / "router.json").read_text(encoding="utf-8"))
    assert router["axes"] == list(turned)


def test_damage_is_repaired(finished: Any, copy: Path, work: Any) -> None:
    (copy / "answers" / "base" / "samples.jsonl").write_text("", encoding="utf-8")
    weights = copy / "experts" / "honesty" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    again = run(finished.recipe, out=copy, systems=["alignx"], progress=False, overwrite=True)
    assert work.trained == ["expert honesty"]
    assert work.asked == ["answers base"]  # the expert's inputs are the same, and so is its key
    assert weights.read_bytes() == (finished.out / weights.relative_to(copy)).read_bytes()
    assert_same_numbers(again.report, finished.result.report)


def test_an_expert_that_changes_before_it_is_read_ends_the_run_and_is_made_again(
    finished: Any, copy: Path, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = copy / "experts" / "honesty" / "adapter_model.safetensors"

    def changed(made: Run) -> Any:
        assert made.experts  # found whole
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
        return bank(made)

    bank = Run.bank
    with monkeypatch.context() as patch:
        patch.setattr(Run, "bank", changed)
        with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors: has changed since the run finished"):
            run(finished.recipe, out=copy, systems=["alignx"], progress=False, overwrite=True)
    again = run(finished.recipe, out=copy, systems=["alignx"], progress=False, overwrite=True)
    assert (work.trained, work.asked) == (["expert honesty"], [])
    assert_same_numbers(again.report, finished.result.report)


KILLED = """
import os, signal, sys
from pathlib import Path
import mocae.stages.training as training
from mocae.pipelines.run import run
from run_for_tests import tiny_recipe

finetune, calls = training.finetune, []

def dying(*args, **kwargs):
    record = finetune(*args, **kwargs)
    calls.append(kwargs["label"])
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return record

training.finetune = dying
run(tiny_recipe(Path(sys.argv[1])), out=sys.argv[2], systems=["alignx"], progress=False)
"""


def test_a_killed_run_goes_on_and_ends_the_same(finished: Any, tmp_path: Path, work: Any) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", KILLED, str(finished.base), str(tmp_path / "out")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in (tmp_path / "out" / "experts").iterdir()] == [AXES[0]]
    assert not (tmp_path / "out" / "report.json").exists()
    result = run(finished.recipe, out=tmp_path / "out", systems=["alignx"], progress=False)
    assert f"expert {AXES[0]}" not in work.trained
    assert f"expert {AXES[1]}" in work.trained
    assert_same_numbers(result.report, finished.result.report)
    assert not (tmp_path / "out" / ".partial").exists()


@pytest.mark.usefixtures("work")
def test_a_run_killed_among_the_answers_of_a_system_goes_on_behind_the_last_batch(
    finished: Any, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, batches = answering._answer_batch, []

    def killed(model: Any, examples: Any, *rest: Any) -> Any:
        batches.append([example.id for example in examples])
        if len(batches) == 2:
            raise KeyboardInterrupt
        return answer(model, examples, *rest)

    (copy / "answers" / "base" / "samples.jsonl").unlink()
    monkeypatch.setattr(answering, "_answer_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(finished.recipe, out=copy, progress=False)
    run(finished.recipe, out=copy, progress=False)
    once = sum(s.system == "base" for s in read_samples(finished.out / "samples.jsonl"))
    assert len({i for batch in batches for i in batch}) == once
    assert batches[1] == batches[2]
    assert sum(map(len, batches)) == once + len(batches[1])  # what was not kept is all that was asked twice
    assert list(read_samples(copy / "samples.jsonl")) == list(read_samples(finished.out / "samples.jsonl"))
    assert not (copy / ".work").exists()


def test_a_subset_of_systems_is_compared_with_base_and_experts(finished: Any, copy: Path, work: Any) -> None:
    again = run(finished.recipe, out=copy, systems=["linear", "uniform"], progress=False, overwrite=True)
    assert (work.trained, work.asked, work.fitted) == ([], [], [])
    assert list(again.report["systems"]) == [*NAMES[:4], "uniform", "linear"]
    assert again.report["comparisons"]["against"] == "base"
    assert again.report["forgetting"] == {}
    # Systems of this run, not whatever lies in the folder.
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    assert list(manifest["systems"]) == [*NAMES[:4], "uniform", "linear"]


def test_two_axes_without_calibration_prompts(finished: Any, tmp_path: Path, work: Any) -> None:
    settings = [f"axes.{axis}.calibration=null" for axis in AXES[:2]]
    recipe = tiny_recipe(finished.base, *settings, axes=AXES[:2], systems=["base", "uniform", "linear", "alignx"])
    report = run(recipe, out=tmp_path, systems=["uniform", "linear"], progress=False).report
    assert set(report["routing"]["linear"]["weights_by_kind"]["task"]) == set(AXES[:2])
    assert report["counts"]["calibration"] == {}
    assert report["forgetting"] == {}
    # Outcomes need prompts; labels do not.
    with pytest.raises(DataError, match=r"no calibration prompts.*axes\.\*\.calibration"):
        run(recipe, out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("held", "name", "axes"),
    [("tiny", "other", AXES), ("build", "tiny", AXES), ("build", "build", AXES[:2]), ("tiny", "build", AXES)],
)
def test_the_finished_run_of_another_recipe_is_not_written_over(
    finished: Any, copy: Path, work: Any, held: str, name: str, axes: tuple[str, ...]
) -> None:
    (copy / "recipe.yaml").write_text(dump_recipe(tiny_recipe(finished.base, name=held)), encoding="utf-8")
    (copy / ".mocae.json").write_text('{"kind": "run", "files": null}', encoding="utf-8")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    mine = tiny_recipe(finished.base, axes=axes, name=name, systems=["base"])
    with pytest.raises(ArtifactError, match=rf"holds another finished run, {held} \(.*; give another --out, or --over"):
        run(mine, out=copy, progress=False)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert work.trained == work.asked == []


def test_a_finished_run_is_not_replaced_by_another_setting_unless_told(finished: Any, copy: Path, work: Any) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    changed = tiny_recipe(finished.base, "experts.r=3", "axes.honesty.test.options.n=8")
    with pytest.raises(ArtifactError) as caught:
        run(changed, out=copy, progress=False)
    assert str(caught.value) == (
        f"{copy}: holds a finished run of tiny with other settings (axes.honesty.test.0.options.n: 9, now 8; "
        "experts.r: 2, now 3); give another --out to keep it, or --overwrite to replace it (what the change does not "
        "touch is not made again)"
    )
    with pytest.raises(ArtifactError, match=r"other settings \(systems: without 'uniform'.*\); give another --out"):
        run(finished.recipe, out=copy, systems=["alignx"], progress=False)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert work.trained == work.asked == []


def test_a_finished_run_takes_in_another_system_and_moves_without_being_told(
    finished: Any, copy: Path, tmp_path: Path, work: Any
) -> None:
    more = tiny_recipe(finished.base, f"data_root={tmp_path}", systems=[*SYSTEMS, {"name": "s", "policy": "sum"}])
    assert "s" in run(more, out=copy, progress=False).report["systems"]
    assert work.trained == []


def test_a_run_does_not_write_over_what_somebody_put_into_its_folder(finished: Any, copy: Path) -> None:
    (copy / "README.md").write_text("my own words", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"would write over README.md, which it did not write or which was changed"):
        run(finished.recipe, out=copy, progress=False)
    project = copy.parent / "project"
    project.mkdir()
    (project / "recipe.yaml").write_text("name: mine", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"holds files that mocae did not write there \(recipe.yaml\)"):
        train_expert(finished.recipe, axis="honesty", out=project, progress=False)
    assert [path.name for path in project.iterdir()] == ["recipe.yaml"]


def test_another_run_is_replaced_if_asked_and_nothing_of_it_stays(finished: Any, copy: Path, work: Any) -> None:
    below = shutil.copytree(copy / "experts", copy / "below" / "experts")
    (copy / "notes.txt").write_text("mine", encoding="utf-8")
    mine = tiny_recipe(finished.base, axes=AXES[:2], name="other", systems=["base"])
    run(mine, out=copy, progress=False, overwrite=True)
    assert [path.name for path in sorted((copy / "experts").iterdir())] == sorted(AXES[:2])
    assert len(work.trained) == 2
    assert not (copy / "answers" / "joint").exists()
    assert (copy / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in below.iterdir()) == sorted(AXES)
    assert mocae.load(copy, device="cpu").experts == AXES[:2]


def test_an_unknown_system_is_refused_before_anything_is_made(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"systems: unknown system 'alingx'\..*Did you mean 'alignx'"):
        run(finished.recipe, out=tmp_path / "out", systems=["base", "alingx"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ([{"name": "base", "policy": "uniform"}], r"'base' has policy 'uniform'; others are measured against 'base'"),
        (["base", {"name": "..", "policy": "uniform"}], r"'\.\.' is no name; give it a letter or a digit"),
        (["base", {"name": "", "policy": "uniform"}], r"'' is no name"),
        (
            ["base", {"name": "a b", "policy": "uniform"}, {"name": "A_b", "policy": "sum"}],
            r"'a b' and 'A_b' would share the folder 'A_b'; rename one of them",
        ),
    ],
)
def test_names_that_cannot_be_folders_are_refused(
    finished: Any, tmp_path: Path, systems: list[Any], message: str
) -> None:
    with pytest.raises(MocaeError, match=message):
        run(tiny_recipe(finished.base, systems=systems), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sharded_base_is_refused_to_systems_that_need_it_whole(finished: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(finished.base, "base.shard=true", systems=["base", "merge:average"])
    with pytest.raises(
        ConfigError, match=r"systems\.1\.policy: 'merge:average' needs every weight .* leave this system out"
    ):
        run(recipe, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_leak_is_refused_before_training(finished: Any, tmp_path: Path, work: Any) -> None:
    leaky = tiny_recipe(finished.base, "axes.honesty.calibration.options.split=test")
    with pytest.raises(DataError, match=r"'calibration' \(pocket:test:honesty\) and 'test' \(pocket:test:honesty\)"):
        run(leaky, out=tmp_path, progress=False)
    assert work.trained == []


def test_without_progress_nothing_is_printed(finished: Any, copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(
        tiny_recipe(finished.base, "axes.honesty.train.options.seed=6"),
        out=copy,
        systems=["base"],
        progress=False,
        overwrite=True,
    )
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_checkpoints_of_other_settings_are_left_alone(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def stop(*_: Any, work: Path | None, **__: Any) -> None:
        folders.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr("mocae.stages.training.finetune", stop)
    for rate in (0.02, 0.02, 0.01):
        settings = ("experts.optimizer.checkpoint_steps=1", f"experts.optimizer.learning_rate={rate}")
        with pytest.raises(KeyboardInterrupt):
            run(tiny_recipe(finished.base, *settings), out=tmp_path, progress=False)
    first, again, other = folders
    assert first == again != other
    assert first is not None
    assert first.parent == tmp_path / ".work"


def test_rivals_are_asked_the_same_prompts(finished: Any, copy: Path, work: Any) -> None:
    rivals: list[Any] = [
        "prompt_only",
        "joint_outcomes",
        {"name": "merged", "policy": "merge:task-arithmetic"},
        {"name": "trinityx", "policy": "trinityx", "options": {"max_rows": 4}},
    ]
    recipe = tiny_recipe(finished.base, systems=[*SYSTEMS[:4], "sum", *rivals])
    report = run(recipe, out=copy, overwrite=True, progress=False).report
    assert list(report["systems"]) == [*NAMES[:4], "sum", "prompt_only", "joint_outcomes", "merged", "trinityx"]
    assert len(work.trained) == 1 + len(AXES)  # joint training on accepted answers, and experts of TrinityX
    answers: dict[str, list[str]] = {}
    for sample in read_samples(copy / "samples.jsonl"):
        answers.setdefault(sample.system, []).append(sample.answer.text)
    assert {len(texts) for texts in answers.values()} == {3 * N_TEST}
    # Task vectors added into the weights are all experts with weight 1.
    same = sum(a == b for a, b in zip(answers["merged"], answers["sum"], strict=True))
    assert same >= 3 * N_TEST - 2  # the order of additions differs
    before = (list(work.trained), list(work.asked))
    assert run(recipe, out=copy, progress=False).report == report
    assert (work.trained, work.asked) == before
