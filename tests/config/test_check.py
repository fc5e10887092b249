from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mocae.config import SYSTEMS, parse_recipe
from mocae.data import hash_fraction
from mocae.errors import ConfigError, DataError
from mocae.experts import TRAINERS
from mocae.merging import MERGE_METHODS, average
from mocae.pipelines.check import validate
from recipes_for_tests import small_recipe


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MOCAE_DATA_ROOT", "MOCAE_BASE_MODEL"):
        monkeypatch.delenv(variable, raising=False)


def check(values: dict[str, Any]) -> list[str]:
    return validate(parse_recipe(values), where="x.yaml")


def with_train(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values = small_recipe(**changes)
    values["axes"][0]["train"] = source
    return values


def test_a_right_recipe_has_no_notes() -> None:
    assert check(small_recipe()) == []


def test_what_cannot_be_checked_is_noted() -> None:
    values = with_train({"source": "alpaca", "path": "alpaca.json"}, base={"model": None})
    assert check(values) == [
        "base.model: not set; a run needs --set base.model=... or MOCAE_BASE_MODEL",
        "data_root: not set (nor MOCAE_DATA_ROOT), so these were not looked for: alpaca.json",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_format": "plane"}, r"x.yaml: prompt_format: unknown prompt format 'plane'.*Did you mean 'plain'"),
        ({"judges": [{"judge": "pockt"}]}, r"x.yaml: judges.0.judge: unknown judge 'pockt'.*Did you mean 'pocket'"),
        (
            {"judges": [{"judge": "reference-overlap", "options": {"treshold": 0.3}}]},
            r"x.yaml: judges.0.options: unknown option of judge 'reference-overlap' 'treshold'.*'threshold'",
        ),
        *(
            (
                {"base": {"model": "pocket", "shard": True}, "systems": ["base", policy]},
                rf"x.yaml: systems.1.policy: '{policy}' needs every weight of the base model whole, and base",
            )
            for policy in ("merge:average", "merge:task-arithmetic")
        ),
        ({"systems": ["expert:honest"]}, r"x.yaml: systems.0.policy: unknown axis 'honest'.*Did you mean 'honesty'"),
        ({"systems": ["alingx"]}, r"x.yaml: systems.0.policy: unknown system 'alingx'.*Did you mean 'alignx'"),
        (
            {"systems": [{"name": "s", "policy": "static", "options": {"weights": {"honest": 1.0}}}]},
            r"x.yaml: systems.0.options.weights: unknown axis 'honest'.*Did you mean 'honesty'",
        ),
        (
            {"systems": [{"name": "s", "policy": "uniform", "options": {"weights": {}}}]},
            r"x.yaml: systems.0.options.weights: unknown option of 'uniform' 'weights'",
        ),
    ],
)
def test_unknown_names_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(small_recipe(**changes))


@pytest.mark.parametrize(
    ("system", "message"),
    [
        (
            {"policy": "merge:averge"},
            r"x.yaml: systems.0.policy: unknown merge method 'averge'.*Did you mean 'average'",
        ),
        (
            {"policy": "merge:average", "options": {"base_wait": 0.5}},
            r"x.yaml: systems.0.options: merge method 'average': unknown option 'base_wait'.*mean 'base_weight'",
        ),
        (
            {"policy": "merge:task-arithmetic", "options": {"weights": {"honest": 1.0}}},
            r"systems.0.options: unknown expert 'honest'.*Did you mean 'honesty'",
        ),
        (
            {"policy": "merge:average", "options": {"base_weight": 0.5, "experts": "honesty"}},
            r"systems.0.options.experts: .*valid list; got 'honesty'",
        ),
        (
            {"policy": "sequential", "options": {"order": ["honesty", "honesty"]}},
            r"systems.0.options.order: got \['honesty', 'honesty'\]; name every axis once \(helpfulness, honesty\)",
        ),
        ({"policy": "sequential", "options": {"order": "honesty"}}, r"systems.0.options.order: .*got 'honesty'"),
        (
            {"policy": "trinityx", "options": {"taw": 0.7}},
            r"systems.0.options.taw: unknown option of 'trinityx' 'taw'.*Did you mean 'tau'",
        ),
        ({"policy": "trinityx", "options": {"tau": 0.0}}, r"systems.0.options.tau: .*greater than 0; got 0.0"),
        ({"policy": "trinityx", "options": {"top_k": 3}}, r"systems.0.options.top_k: got 3; there are 2 experts"),
        (
            {"policy": "trinityx", "options": {"importance": "adapter"}},
            r"systems.0.options.importance_adapter: got None with importance 'adapter'; give a PEFT folder",
        ),
        ({"policy": "joint", "options": {"r": 8}}, r"systems.0.options.r: unknown option of 'joint' 'r'. Known: none"),
        (
            {"policy": "joint_outcomes", "options": {"schedule": "before"}},
            r"systems.0.options.schedule: .*'mixed', 'after' or 'alone'; got 'before'",
        ),
        ({"policy": "joint:all"}, r"systems.0.policy: 'joint' takes nothing behind a colon"),
    ],
)
def test_options_of_rivals_are_checked(system: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(small_recipe(systems=[{"name": "rival", **system}]))


@pytest.mark.parametrize(
    "system",
    [
        {"policy": "merge:average", "options": {"base_weight": 0.5, "experts": ["honesty", "helpfulness"]}},
        {"policy": "sequential", "options": {"order": ["honesty", "helpfulness"]}},
        {"policy": "joint_outcomes", "options": {"schedule": "after"}},
        {"policy": "trinityx", "options": {"target_modules": ["down_proj"], "importance": "joint", "top_k": 2}},
    ],
)
def test_right_options_of_rivals_are_accepted(system: dict[str, Any]) -> None:
    assert check(small_recipe(systems=[{"name": "rival", **system}])) == []


def test_the_adapter_importance_is_taken_from_must_be_there(tmp_path: Path) -> None:
    options = {"importance": "adapter", "importance_adapter": str(tmp_path)}
    values = small_recipe(systems=[{"name": "rival", "policy": "trinityx", "options": options}])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        with pytest.raises(ConfigError) as caught:
            check(values)
        assert str(caught.value) == (
            f"x.yaml: systems.rival.options.importance_adapter: no file '{tmp_path / name}'; give the folder of a "
            "PEFT LoRA"
        )
        (tmp_path / name).touch()
    assert check(values) == []


@pytest.mark.parametrize("policy", ["linear", "alignx"])
@pytest.mark.parametrize(
    ("options", "key"), [({"top_k": 9}, "top_k"), ({"routing": {"top_k": 9}}, "routing.top_k"), ({"top_k": 2}, None)]
)
def test_a_router_cannot_use_more_experts_than_there_are(policy: str, options: dict[str, Any], key: str | None) -> None:
    values = small_recipe(systems=[{"name": "mine", "policy": policy, "options": options}])
    if key is None:
        assert check(values) == []
        return
    with pytest.raises(ConfigError) as caught:
        check(values)
    assert str(caught.value) == f"x.yaml: systems.0.options.{key}: got 9; there are 2 experts, so at most that"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"source": "alpacca"}, r"axes.helpfulness.train.0.source: unknown source 'alpacca'.*Did you mean 'alpaca'"),
        (
            {"source": "pocket", "options": {"splt": "train"}},
            r"axes.helpfulness.train.0.options: unknown option",
        ),
        ({"source": "pocket", "options": {"axis": "x"}}, r"unknown option of source 'pocket' 'axis'"),
        (
            {"source": "pocket", "options": {"n": "many"}},
            r"source 'pocket': option 'n': got 'many'; it should be",
        ),
        ({"source": "hub", "options": {"name": "a/b"}}, r"source 'hub' needs the option 'split'"),
    ],
)
def test_wrong_sources_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(with_train(source))


def test_files_must_be_there(tmp_path: Path) -> None:
    values = with_train({"source": "alpaca", "path": "a.json"}, data_root=str(tmp_path))
    values["judges"] = [{"judge": "pocket"}, {"judge": "safety-classifier", "options": {"labelled": "b.jsonl"}}]
    with pytest.raises(ConfigError) as caught:
        check(values)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"x.yaml: axes.helpfulness.train.0.path: no file '{tmp_path}/a.json'; paths start from")
    assert second.startswith(f"x.yaml: judges.1.options.labelled: no file '{tmp_path}/b.jsonl'; paths start from")
    (tmp_path / "a.json").write_text('[{"instruction": "Name a river.", "output": "The Nile."}]', encoding="utf-8")
    (tmp_path / "b.jsonl").touch()
    assert check(values) == []


def test_splits_that_share_rows_are_refused() -> None:
    values = with_train({"source": "alpaca", "path": "a.json", "hash_range": [0.0, 0.6]})
    values["axes"][0]["test"] = {"source": "alpaca", "path": "a.json", "hash_range": [0.6, 1.0]}
    check(values)
    values["axes"][0]["test"]["hash_range"] = [0.5, 1.0]
    with pytest.raises(ConfigError, match=r"test.0.hash_range: got \[0.5, 1.0\], which overlaps \[0.0, 0.6\]"):
        check(values)
    del values["axes"][0]["test"]["hash_range"]
    with pytest.raises(ConfigError, match=r"axes.helpfulness.test.0.hash_range: got \[0.0, 1.0\], which overlaps"):
        check(values)


def test_an_expert_that_never_sees_a_bare_prompt_is_told() -> None:
    assert check(small_recipe(experts={"injection_rate": 1.0})) == []  # no axis injects anything
    values = small_recipe(experts={"injection_rate": 1.0})
    values["axes"][0]["injection"] = "Be brief."
    (note,) = check(values)
    assert note.startswith("experts.injection_rate: 1.0, so every training row carries the injected prompt")
    assert check(values | {"experts": {}}) == []


def test_a_file_that_teaches_judge_and_expert_is_told_and_refused_where_nothing_is_left(tmp_path: Path) -> None:
    row = {"prompt": "Ask 0.", "response": "No.", "category": {"theft": False}, "is_safe": True}
    rows = [row | {"prompt": f"Ask {i}."} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judges = [{"judge": "pocket"}, {"judge": "safety-classifier", "options": {"labelled": "a.jsonl"}}]
    source = {"source": "beavertails", "path": "a.jsonl", "hash_range": [0.0, 0.8]}
    (note,) = check(with_train(source, judges=judges, data_root=str(tmp_path)))
    assert note.startswith("judges.1: 'safety-classifier' learns from 'a.jsonl', which trains axis 'helpfulness' too")
    with pytest.raises(ConfigError, match=r"judges.1: 'safety-classifier' .* with all its prompts; give the"):
        check(with_train(source | {"hash_range": None}, judges=judges, data_root=str(tmp_path)))


def test_a_limit_no_split_can_reach_is_told_with_the_count(tmp_path: Path) -> None:
    rows = [{"instruction": f"Name number {i}.", "output": str(i)} for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    source = {"source": "alpaca", "path": "a.json", "hash_range": [0.0, 0.5], "limit": 30}
    (note,) = check(with_train(source, data_root=str(tmp_path)))
    n = sum(hash_fraction(row["instruction"]) < 0.5 for row in rows)
    assert n < 30
    assert note == (
        f"axes.helpfulness.train.0.limit: 30 is never reached, its source has {n} rows with a hash in [0.0, 0.5)"
    )
    assert check(with_train(source | {"limit": n}, data_root=str(tmp_path))) == []
    (note,) = check(with_train(source))
    assert note.startswith("data_root: not set")  # nothing to count
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"x.yaml: axes.helpfulness.train.0: .*a.json: found an object at the top"):
        check(with_train(source, data_root=str(tmp_path)))


def test_a_judge_that_constant_answers_fool_is_noted(tmp_path: Path) -> None:
    recipe = parse_recipe(small_recipe(judges=[{"judge": "pocket"}, {"judge": "reference-overlap"}]))
    assert any(note.startswith("judges.1: 'reference-overlap' is not to be believed: ") for note in validate(recipe))
    row = {"constant": "yes", "judgement": "refusal", "says": True, "n": 50, "accepted": 0.5}
    for rows, noted in (([row], True), ([row | {"accepted": 0.1}], False)):
        record = {"schema_version": 1, "judge": "refusal-classifier", "quality": None, "learned_from": []}
        audit = {"rows": rows, "believed": not noted}
        (tmp_path / "judge.json").write_text(json.dumps(record | {"audit": audit}), encoding="utf-8")
        judge = {"judge": "refusal-classifier", "options": {"saved": str(tmp_path)}}
        notes = validate(parse_recipe(small_recipe(judges=[{"judge": "pocket"}, judge])))
        assert any("not to be believed: yes: refusal on 50% of 50 prompts" in note for note in notes) is noted


def test_what_a_package_brings_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.registry.entry_points", lambda **_: ())
    for registry in (SYSTEMS, MERGE_METHODS, TRAINERS):
        monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(MERGE_METHODS, "_loaded", {"average": average})
    values = small_recipe(systems=["base", "xlora", {"name": "trimmed", "policy": "merge:ties"}, "merge:average"])
    values["experts"] = {"optimizer": {"method": "mezo"}}
    with pytest.raises(ConfigError) as refusal:
        check(values)
    assert str(refusal.value) == (
        "x.yaml: systems.1 (xlora), systems.2 (trimmed), experts.optimizer.method (mezo): part of mocae-rivals, which "
        "is not installed; run: pip install -e plugins/rivals, or leave them out"
    )


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            {"method": "adamv"},
            r"x.yaml: experts.optimizer.method: unknown training method 'adamv'.*Did you mean 'adamw'",
        ),
        (
            {"options": {"beta": 0.9}},
            r"x.yaml: experts.optimizer.options: unknown option of training method 'adamw' 'beta'",
        ),
        (
            {"method": "other", "checkpoint_steps": 5},
            r"checkpoint_steps: got 5 with method 'other'; 'adamw' alone has any",
        ),
    ],
)
def test_how_experts_are_trained_is_checked(optimizer: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(small_recipe() | {"experts": {"optimizer": optimizer}})


def test_settings_of_an_earlier_recipe_are_read() -> None:
    earlier = {"method": "mezo", "forward_only": {"perturbation": 0.01}}
    optimizer = parse_recipe(small_recipe() | {"experts": {"optimizer": earlier}}).experts.optimizer
    assert (optimizer.method, optimizer.options) == ("mezo", {"perturbation": 0.01})
    unused = parse_recipe(small_recipe() | {"experts": {"optimizer": {**earlier, "method": "adamw"}}})
    assert unused.experts.optimizer.options == {}
