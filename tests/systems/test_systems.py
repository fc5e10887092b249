"""Every system of one run: what the run measured is what is loaded, served and exported."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import mocae
from mocae.config import SystemConfig, load_recipe
from mocae.errors import ArtifactError, ConfigError, PluginError
from mocae.evaluation import read_samples
from mocae.models import PlainModel, load_base
from mocae.pipelines.artifact import AlignedModel
from mocae.pipelines.export import export
from mocae.pipelines.run import RunResult, run
from mocae.prompts import FORMATS
from mocae.serving import Delta, Event, Failed, Finished, Request
from mocae.serving.conversation import Turn
from mocae.serving.lanes import Lanes
from mocae.serving.served import Served
from mocae.systems import SYSTEMS, build_system
from mocae.types import Sample
from run_for_tests import AXES, tiny_base, tiny_recipe

COMPARED: list[Any] = [
    "base",
    *(f"expert:{axis}" for axis in AXES),
    "uniform",
    "sum",
    {"name": "less honest", "policy": "static", "options": {"weights": {"helpfulness": 1.0, "honesty": -0.5}}},
    "prompt_only",
    "linear",
    "knn",
    "alignx",
    {"name": "mixing all", "policy": "alignx", "options": {"top_k": None}},
    {
        "name": "by margin",
        "policy": "alignx",
        "options": {"routing": {"outcome": {"max_prompts": 9, "choice": "margin"}}},
    },
    {"name": "one more", "policy": "alignx_outcomes", "options": {"n_folds": 2}},
    {
        "name": "one more by margin",
        "policy": "alignx_outcomes",
        "options": {"n_folds": 2, "routing": {"outcome": {"max_prompts": 20, "choice": "margin"}}},
    },
    {"name": "with output", "policy": "alignx", "options": {"routing": {"output": {"rank": 2}}}},
    "oracle",
    "joint",
    {"name": "joint after", "policy": "joint_outcomes", "options": {"schedule": "after"}},
    {"name": "joint dpo", "policy": "joint_outcomes", "options": {"schedule": "alone", "objective": "dpo"}},
    {"name": "joint kto", "policy": "joint_outcomes", "options": {"objective": "kto"}},
    "sequential",
    {"name": "distilled", "policy": "distilled", "options": {"teacher": "mixing all", "keep_cut": True}},
    {"name": "task arithmetic", "policy": "merge:task-arithmetic", "options": {"weights": {"honesty": 0.5}}},
    "trinityx",
    {"name": "trinityx top-1", "policy": "trinityx", "options": {"top_k": 1, "norm": True, "importance": "joint"}},
]
NAMES = [system if isinstance(system, str) else system["name"] for system in COMPARED]
USABLE = [name for name in NAMES if name != "oracle"]
REFUSED = {"trinityx": "token by token", "trinityx top-1": "token by token", "prompt_only": "as its system prompt"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    root = tmp_path_factory.mktemp("systems")
    recipe = tiny_recipe(tiny_base(root / "base"), systems=COMPARED)
    return run(recipe, out=root / "out", progress=False)


@pytest.fixture(scope="module")
def out(result: RunResult) -> Path:
    return result.report_path.parent


@pytest.fixture(scope="module")
def model(out: Path) -> AlignedModel:
    return mocae.load(out, device="cpu")


@pytest.fixture(scope="module")
def samples(out: Path) -> dict[str, list[Sample]]:
    """The answers of every system to a few prompts of each axis."""
    by_system: dict[str, list[Sample]] = {}
    for sample in read_samples(out / "samples.jsonl"):
        by_system.setdefault(sample.system, []).append(sample)
    return {name: rows[::4] for name, rows in by_system.items()}


def test_every_kind_of_system_is_there() -> None:
    kinds = {(name if isinstance(name, str) else name["policy"]).partition(":")[0] for name in COMPARED}
    assert kinds == SYSTEMS.builtin


def test_systems_differ(samples: dict[str, list[Sample]]) -> None:
    texts = {tuple(sample.answer.text for sample in rows) for rows in samples.values()}
    assert len(texts) > len(samples) / 2  # else equality below would show nothing


def test_the_report_tells_what_each_system_is(result: RunResult) -> None:
    lines = SYSTEMS.describe()
    systems = result.report["systems"]
    for name, system in zip(NAMES, COMPARED, strict=True):
        policy = system if isinstance(system, str) else system["policy"]
        if policy != "joint_outcomes":
            assert systems[name]["about"] == lines[policy.partition(":")[0]].replace("expert:<axis>", name)
    learned = {name for name, entry in systems.items() if entry["uses_verdicts"]}
    assert {"alignx", "knn"} <= learned
    assert not {"base", "joint", "linear", "uniform"} & learned
    assert {name for name in result.report["routing"]} >= {"alignx", "linear", "knn", "trinityx"}


@pytest.mark.parametrize(
    ("schedule", "line"),
    [
        ("mixed", "joint tuning plus the accepted answers to the calibration prompts"),
        ("after", "joint tuning, then tuning on the accepted answers to the calibration prompts"),
        ("alone", "one adapter tuned on the accepted answers to the calibration prompts alone"),
    ],
)
def test_a_rival_says_what_its_schedule_makes_of_it(schedule: str, line: str) -> None:
    config = SystemConfig(name="rival", policy="joint_outcomes", options={"schedule": schedule})
    assert build_system(config, ("a", "b"), where="x").about == line


def test_the_first_run_has_the_strongest_rivals() -> None:
    systems = load_recipe("pocket").systems
    assert "prompt_only" in [system.policy for system in systems]
    assert {"schedule": "alone"} in [dict(s.options) for s in systems if s.policy == "joint_outcomes"]


def test_verdicts_by_margin_are_few_and_the_same_whether_others_are_judged_too(out: Path, tmp_path: Path) -> None:
    alone = tiny_recipe(out.parent / "base", systems=["base", next(s for s in COMPARED if "by margin" in str(s))])
    run(alone, out=tmp_path / "alone", progress=False)
    chosen = [json.loads((o / "chosen" / "margin-9" / "chosen.json").read_text()) for o in (out, tmp_path / "alone")]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 9
    judged = [
        {
            (s.system, s.answer.example.id, s.acceptable)
            for s in read_samples(o / "chosen" / "margin-9" / "outcomes.jsonl")
        }
        for o in (out, tmp_path / "alone")
    ]
    assert judged[0] == judged[1]
    assert len(judged[0]) == 9 * len(AXES)
    assert not (tmp_path / "alone" / "outcomes").exists()  # nobody else was judged


@pytest.mark.parametrize("name", USABLE)
def test_a_system_answers_as_the_run_measured(model: AlignedModel, samples: dict[str, list[Sample]], name: str) -> None:
    for sample in samples[name]:
        reply = model.reply(sample.answer.example.prompt, system=name)
        assert reply.text == sample.answer.text
        weights = sample.answer.weights
        assert not weights or reply.weights == pytest.approx(dict(weights), abs=1e-4)
        assert reply.confidence == pytest.approx(sample.answer.confidence, abs=1e-5)


def test_systems_are_served_side_by_side_as_measured(
    model: AlignedModel, samples: dict[str, list[Sample]], out: Path
) -> None:
    served = Served(model.artifact, version="test")
    assert set(USABLE) <= set(served.models)
    asked = [(name, sample) for name in USABLE for sample in samples[name]]
    requests = [
        Request(
            served.chat_tokens([Turn("user", sample.answer.example.prompt)], model=name),
            served.policy(name),
            served.max_new_tokens,
            strip=True,
            stream=True,
            lane=served.lane(name),
        )
        for name, sample in asked
    ]
    ends: dict[int, Event] = {}
    pieces: dict[int, str] = {}
    left = threading.Semaphore(0)

    def take(index: int, event: Event) -> None:
        if isinstance(event, Delta):
            pieces[index] = pieces.get(index, "") + event.text
            return
        ends[index] = event
        left.release()

    with Lanes(served) as lanes:
        lanes.submit(requests, [lambda event, i=i: take(i, event) for i in range(len(requests))])  # type: ignore[misc]
        for _ in requests:
            assert left.acquire(timeout=120)
    for i, (name, sample) in enumerate(asked):
        end = ends[i]
        assert not isinstance(end, Failed), end
        assert isinstance(end, Finished)
        assert (name, end.text) == (name, sample.answer.text)
        assert pieces.get(i, "") == end.text


@pytest.mark.parametrize("name", USABLE)
def test_a_system_is_exported_or_refused_with_the_reason(
    out: Path, tmp_path: Path, samples: dict[str, list[Sample]], name: str
) -> None:
    system = build_system(SystemConfig(**_entry(out, name)), AXES)
    constant = system.constant_weights()
    if name in REFUSED:
        with pytest.raises(ConfigError, match=REFUSED[name]):
            export(out, to="gguf", out=tmp_path / "x", system=name, progress=False)
        return
    if system.weights_mean == "chances":  # what is chosen for each prompt is for the gateway in front
        manifest = export(out, to="gguf", out=tmp_path / "x", system=name, progress=False)
        assert manifest["experts"] == [*AXES, *(["accepted"] if name.startswith("one more") else [])]
        assert (manifest["router"] is not None) == (name != "knn")
        return
    if constant is not None and not any(constant.values()):
        with pytest.raises(ConfigError, match="all are 0, which is the base model"):
            export(out, to="merged", out=tmp_path / "x", system=name, progress=False)
        return
    manifest = export(out, to="merged", out=tmp_path / "x", system=name, progress=False)
    assert manifest["system"] == name
    exported = PlainModel(load_base(str(tmp_path / "x"), dtype="fp32", device="cpu"))
    base, n_new = exported.base, json.loads((out / "manifest.json").read_text(encoding="utf-8"))["max_new_tokens"]
    for sample in samples[name]:
        prompt = FORMATS.get("plain").format_prompt(sample.answer.example.prompt, injection=None)
        tokens = base.tokenizer(prompt).input_ids
        answer = exported.generate(torch.tensor([tokens]), max_new_tokens=n_new, do_sample=False)
        new = answer.ids[0, len(tokens) :].tolist()
        text = base.tokenizer.decode(new[: base.description.length(new)], skip_special_tokens=True)
        assert text.strip() == sample.answer.text


def _entry(out: Path, name: str) -> dict[str, Any]:
    entry = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["systems"][name]
    return {"name": name, "policy": entry["policy"], "options": entry["options"]}


def test_an_upper_bound_is_not_loaded(out: Path, model: AlignedModel) -> None:
    with pytest.raises(ConfigError, match="'oracle' is an upper bound and cannot be used: it chooses by the verdicts"):
        mocae.load(out, system="oracle")
    assert "oracle" not in Served(model.artifact).models


@pytest.mark.parametrize(
    ("file", "value"),
    [("reading.json", {"x": 1}), ("reading.json", {"layer": ["2"], "pool": "mean"}), ("prompt.json", [])],
)
def test_files_that_are_not_as_they_were_written_are_an_error_of_ours(
    out: Path, tmp_path: Path, file: str, value: Any
) -> None:
    copy = shutil.copytree(out, tmp_path / "out")
    name, folder = (
        ("knn", copy / "knn" / "knn") if file == "reading.json" else ("prompt_only", copy / "prompt" / "prompt_only")
    )
    (folder / file).write_text(json.dumps(value), encoding="utf-8")
    (folder / "stage.json").unlink()
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "stages": {}}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="run the recipe again"):
        mocae.load(copy, system=name, device="cpu")


def test_systems_of_their_own_take_no_weights(model: AlignedModel) -> None:
    for name in ("joint", "trinityx", "task arithmetic", "prompt_only"):
        with pytest.raises(ConfigError, match=f"system '{name}' has no weights that could be steered or given"):
            model.reply("What is 1 plus 1?", system=name, steer={"honesty": 2.0})


def test_a_loaded_system_leaves_the_others_as_they_are(model: AlignedModel, samples: dict[str, list[Sample]]) -> None:
    prompt = samples["alignx"][0].answer.example.prompt
    before = model.reply(prompt)
    for name in USABLE:
        model.reply(prompt, system=name)
    assert model.reply(prompt) == before


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"policy": "alingx"}, PluginError, r"unknown system 'alingx'.*Did you mean 'alignx'"),
        ({"policy": "expert:kind"}, ConfigError, r"systems.x.policy: unknown axis 'kind'. Known: 'harmlessness'"),
        ({"policy": "expert"}, ConfigError, r"unknown axis ''"),
        ({"policy": "base:x"}, ConfigError, r"'base' takes nothing behind a colon, got 'x'"),
        ({"policy": "uniform:"}, ConfigError, r"'uniform' takes nothing behind a colon, got ''"),
        ({"policy": "oracle:x"}, ConfigError, r"'oracle' takes nothing behind a colon, got 'x'"),
        ({"policy": "alignx:x"}, ConfigError, r"'alignx' takes nothing behind a colon, got 'x'"),
        ({"policy": "base", "options": {"top_k": 1}}, ConfigError, r"options.top_k: unknown option of 'base' 'top_k'"),
        ({"policy": "alignx", "options": {"topk": 1}}, ConfigError, r"option of 'alignx' 'topk'.*Did you mean 'top_k'"),
        ({"policy": "alignx", "options": {"top_k": "two"}}, ConfigError, r"options.top_k: .*got 'two'"),
        ({"policy": "alignx", "options": {"top_k": 4}}, ConfigError, r"options.top_k: got 4; there are 3 experts"),
        (
            {"policy": "alignx", "options": {"routing": {"top_k": 4}}},
            ConfigError,
            r"options.routing.top_k: got 4; there are 3 experts",
        ),
        (
            {"policy": "alignx", "options": {"routing": {"novel": True}}},
            ConfigError,
            r"options.routing.novel: .*not permitted",
        ),
        ({"policy": "static"}, ConfigError, r"options.weights: none given"),
        ({"policy": "static", "options": {"weights": [1.0]}}, ConfigError, r"options.weights: .*got \[1.0\]"),
        ({"policy": "static", "options": {"weights": {"kind": 1.0}}}, ConfigError, r"unknown axis 'kind'"),
        ({"policy": "sequential", "options": {"order": ["honesty"]}}, ConfigError, r"name every axis once"),
        (
            {"policy": "joint_outcomes", "options": {"objective": "dpo"}},
            ConfigError,
            r"options.objective: 'dpo' learns pairs, which rows of axes are not; use schedule after",
        ),
        ({"policy": "merge:tise"}, PluginError, r"unknown merge method 'tise'"),
        ({"policy": "trinityx", "options": {"importance": "adapter"}}, ConfigError, r"importance_adapter: got None"),
    ],
)
def test_what_does_not_fit_a_system_is_refused(config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_system(SystemConfig(name="x", **config), AXES)


def test_whole_numbers_are_weights_too() -> None:
    config = SystemConfig(name="x", policy="static", options={"weights": {"honesty": -1, "helpfulness": 0.5}})
    assert build_system(config, AXES).constant_weights() == {"helpfulness": 0.5, "harmlessness": 0.0, "honesty": -1.0}
