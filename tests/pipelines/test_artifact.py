from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mocae
from mocae.errors import ArtifactError, ConfigError, DataError, ModelMismatchError
from mocae.evaluation import read_samples
from mocae.pipelines.artifact import AlignedModel
from mocae.pipelines.opening import opening
from run_for_tests import AXES, tiny_base

PROMPT = "Repeat the word river."


@pytest.fixture(scope="module")
def model(finished: Any) -> AlignedModel:
    return mocae.load(finished.out, device="cpu")


def test_a_reply_has_weights_that_sum_to_1(model: AlignedModel) -> None:
    reply = model.reply(PROMPT)
    assert tuple(reply.weights) == model.experts == AXES
    assert sum(reply.weights.values()) == pytest.approx(1, abs=1e-6)
    assert sorted(reply.weights.values()) == [0, 0, 1]  # the likeliest expert answers alone
    assert reply == model.reply(PROMPT)


def test_replies_are_the_answers_of_the_run(finished: Any, model: AlignedModel) -> None:
    samples = list(read_samples(finished.out / "samples.jsonl"))
    for policy in ("alignx", "linear", "uniform", "expert:honesty", "base"):
        for sample in [s for s in samples if s.system == policy][:5]:
            reply = model.reply(sample.answer.example.prompt, system=policy)
            assert reply.text == sample.answer.text
            weights = sample.answer.weights or dict.fromkeys(AXES, 0.0)  # base was asked without a bank
            assert reply.weights == pytest.approx(dict(weights), abs=1e-4)


def test_the_default_system_is_alignx(model: AlignedModel) -> None:
    assert model.reply(PROMPT) == model.reply(PROMPT, system="alignx")
    assert model.reply(PROMPT).weights != model.reply(PROMPT, system="uniform").weights


def test_steering_changes_who_answers_and_keeps_the_sum(model: AlignedModel) -> None:
    for axis in AXES:
        steered = model.reply(PROMPT, steer={axis: 1e6}).weights
        assert steered == pytest.approx({name: float(name == axis) for name in AXES})
        assert model.reply(PROMPT, steer={axis: 0.0}).weights[axis] == 0.0
    assert model.reply(PROMPT, steer=dict.fromkeys(AXES, 2.0)).weights == model.reply(PROMPT).weights


@pytest.mark.parametrize("system", ["alignx", "linear", "uniform", "base"])
def test_every_share_of_1_is_its_expert_and_of_0_none_of_it(model: AlignedModel, system: str) -> None:
    for axis in AXES:
        alone = model.reply(PROMPT, system=f"expert:{axis}")
        assert model.reply(PROMPT, system=system, at_least={axis: 1.0}) == alone
        assert model.reply(PROMPT, system=system, at_most={axis: 0.0}).weights[axis] == 0
        if system in ("alignx", "linear"):
            assert model.reply(PROMPT, system=system, prefer={axis: 1e6}) == alone
            assert model.reply(PROMPT, system=system, prefer={axis: 0.0}) == model.reply(PROMPT, system=system)


def test_half_of_an_expert_is_a_blend_with_the_choice(model: AlignedModel) -> None:
    choice = model.reply(PROMPT).weights
    other = min(choice, key=choice.__getitem__)
    half = model.reply(PROMPT, at_least={other: 0.5})
    assert half.weights == pytest.approx(
        {axis: 0.5 * weight + 0.5 * (axis == other) for axis, weight in choice.items()}
    )
    assert half == model.reply(PROMPT, weights=half.weights)
    ids = model.tokenizer("Q: Who?\nA:", return_tensors="pt").input_ids
    options = {"max_new_tokens": 3, "do_sample": False}
    alone = model.generate(ids, system=f"expert:{other}", **options)
    assert model.generate(ids, at_least={other: 1.0}, **options).tolist() == alone.tolist()


def test_weights_replace_routing(model: AlignedModel) -> None:
    reply = model.reply(PROMPT, weights={"honesty": -0.5, "helpfulness": 1.0})
    assert reply.weights == {"helpfulness": 1.0, "harmlessness": 0.0, "honesty": -0.5}
    assert model.reply(PROMPT, weights={}) == model.reply(PROMPT, system="base")


def test_a_system_is_chosen_by_name(model: AlignedModel) -> None:
    reply = model.reply(PROMPT, system="expert:harmlessness")
    assert reply.weights == {"helpfulness": 0.0, "harmlessness": 1.0, "honesty": 0.0}
    assert reply == model.reply(PROMPT, weights={"harmlessness": 1.0})


def test_generation_is_hugging_faces(model: AlignedModel) -> None:
    ids = model.tokenizer("Q: Who?\nA:", return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=3, do_sample=False)
    assert out.shape[1] <= ids.shape[1] + 3
    assert out[0, : ids.shape[1]].tolist() == ids[0].tolist()
    assert len(model.reply(PROMPT, max_new_tokens=1).text) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"system": "alingx"}, ConfigError, r"unknown system of this run 'alingx'.*Did you mean 'alignx'"),
        ({"system": "expert:kindness"}, ConfigError, r"unknown system of this run 'expert:kindness'"),
        ({"system": "oracle"}, ConfigError, r"system 'oracle' is an upper bound and cannot be used: it chooses by"),
        ({"steer": {"kindness": 2.0}}, ConfigError, r"unknown expert 'kindness'"),
        (
            {"steer": {"honesty": -1.0}},
            ConfigError,
            r"steer.honesty: got -1.0; it should be greater than or equal to 0",
        ),
        ({"steer": {"honesty": float("nan")}}, ConfigError, r"steer.honesty: got nan; it should be a finite number"),
        ({"weights": {"kindness": 2.0}}, ConfigError, r"unknown expert 'kindness'"),
        ({"at_least": {"kindness": 0.5}}, ConfigError, r"unknown expert 'kindness'"),
        ({"system": "uniform", "prefer": {"honesty": 1.0}}, ConfigError, r"prefer: got .* without a router's logits"),
        ({"weights": {}, "steer": {"honesty": 2.0}}, ConfigError, r"give one of them"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: AlignedModel, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = model.reply(PROMPT)
    with pytest.raises(error, match=message):
        model.reply(PROMPT, **arguments)
    assert model.reply(PROMPT) == before


def test_an_empty_prompt_is_refused(model: AlignedModel) -> None:
    with pytest.raises(DataError, match="got an empty prompt, '  '"):
        model.reply("  ")


def test_another_base_model_is_refused(finished: Any, tmp_path: Path) -> None:
    other = tiny_base(tmp_path / "other", seed=1)
    with pytest.raises(ModelMismatchError, match=r"fingerprint [0-9a-f]{12}, the one loaded has [0-9a-f]{12}; give"):
        mocae.load(finished.out, device="cpu", base_model=str(other))


def test_a_moved_base_model_is_found_by_argument(finished: Any, tmp_path: Path, model: AlignedModel) -> None:
    moved = shutil.copytree(finished.base, tmp_path / "moved")
    assert mocae.load(finished.out, device="cpu", base_model=str(moved)).reply(PROMPT) == model.reply(PROMPT)


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        path = out / "manifest.json"
        path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")

    return damage


def _cut(name: str) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        path = out / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def _flip(name: str) -> Callable[[Path], None]:
    """Change one bit of the last value: a file no reader would stumble over."""

    def damage(out: Path) -> None:
        data = bytearray((out / name).read_bytes())
        data[-1] ^= 1
        (out / name).write_bytes(data)

    return damage


def _of_before(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "stages"}


def _elsewhere(manifest: dict[str, Any], folder: str) -> dict[str, Any]:
    entry = manifest["systems"]["alignx"]
    return {**manifest, "systems": {"alignx": {**entry, "stages": {**entry["stages"], "router": folder}}}}


def _with_routers(manifest: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a manifest as it was before it named systems."""
    router = {"folder": "router/alignx", "options": {"top_k": 1, "threshold": 0.0, "per_token": False}, **changes}
    return {**{k: v for k, v in manifest.items() if k != "systems"}, "routers": {"alignx": router}}


def _exchange(name: str, other: str) -> Callable[[Path], None]:
    """Put another whole stage in the place of one."""

    def damage(out: Path) -> None:
        shutil.rmtree(out / name)
        shutil.copytree(out / other, out / name)

    return damage


def _remove(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("manifest.json"), r"no manifest\.json, so this is no finished run; give the --out folder"),
        (_cut("manifest.json"), r"manifest\.json: damaged"),
        (_manifest(lambda m: [m]), r"manifest\.json: damaged"),
        (
            _manifest(lambda m: {**m, "base": {"model": "x"}}),
            r"damaged \(base\.revision: Field re",
        ),
        (_manifest(lambda m: {**m, "axes": ["../../x"]}), r"damaged \(axes\.0: "),
        (_manifest(lambda m: {**m, "axes": [7]}), r"damaged \(axes\.0: "),
        (_manifest(lambda m: {**m, "max_new_tokens": "64"}), r"damaged \(max_new_tokens: "),
        (_manifest(lambda m: {k: v for k, v in m.items() if k != "axes"}), r"damaged"),
        (_manifest(lambda m: {**m, "systems": ["alignx"]}), r"damaged"),
        (_manifest(lambda m: {**m, "systems": {"alignx": "router/alignx"}}), r"damaged"),
        (_manifest(lambda m: _with_routers(m, folder="/etc")), r"routers\.alignx\.folder: .*folder inside"),
        (
            _manifest(lambda m: _elsewhere(m, "/etc")),
            r"systems\.alignx\.stages\.router: .*folder inside",
        ),
        (_manifest(lambda m: _elsewhere(m, "router/../../x")), r"systems\.alignx\.stages\.router: .*folder inside"),
        (_manifest(lambda m: {**m, "schema": 99}), r"artifact version 99, this mocae reads version 1"),
        (_manifest(lambda m: {**m, "base": {**m["base"], "dtype": "int3"}}), r"unknown dtype 'int3'"),
        (
            _cut("router/alignx/router.safetensors"),
            r"alignx/router\.safetensors: has changed since the run finished it",
        ),
        (
            _cut("router/alignx/router.json"),
            r"alignx/router\.json: has changed since .*; copy the folder again, or run",
        ),
        (_remove("router/alignx/router.json"), r"alignx/router\.json: is missing since the run finished it"),
        (_cut("experts/honesty/adapter_model.safetensors"), r"honesty/adapter_model\.safetensors: has changed"),
        (_flip("experts/honesty/adapter_model.safetensors"), r"honesty/adapter_model\.safetensors: has changed"),
        (_remove("experts/honesty/adapter_config.json"), r"honesty/adapter_config\.json: is missing"),
        (_cut("experts/honesty/stage.json"), r"honesty/stage\.json: has changed"),
        (_remove("experts/honesty/stage.json"), r"honesty/stage\.json: is missing"),
        (_exchange("experts/honesty", "experts/helpfulness"), r"experts/honesty: was made anew.*brings them together"),
    ],
)
def test_a_damaged_folder_is_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(ArtifactError, match=message):
        mocae.load(copy, device="cpu")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut("router/alignx/router.safetensors"), r"router/alignx: the router cannot be read"),
        (_cut("router/alignx/router.json"), r"router/alignx: the router cannot be read"),
        (_remove("router/alignx/router.json"), r"router/alignx: the router cannot be read"),
        (_cut("experts/honesty/adapter_model.safetensors"), r"honesty.*damaged"),
        (_remove("experts/honesty/adapter_config.json"), r"honesty.*no adapter_config\.json"),
    ],
)
def test_a_damaged_folder_without_records_is_refused_too(
    copy: Path, damage: Callable[[Path], None], message: str
) -> None:
    for record in copy.rglob("stage.json"):
        record.unlink()
    _manifest(_of_before)(copy)
    damage(copy)
    with pytest.raises(ArtifactError, match=message):
        mocae.load(copy, device="cpu")


def test_a_manifest_of_before_stages_were_named_loads(copy: Path) -> None:
    _manifest(_of_before)(copy)
    assert mocae.load(copy, device="cpu").experts == AXES


def test_a_manifest_of_before_systems_were_named_loads(copy: Path, model: AlignedModel) -> None:
    _manifest(_with_routers)(copy)
    assert mocae.load(copy, device="cpu").reply(PROMPT) == model.reply(PROMPT)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere: no manifest\.json"):
        mocae.load(tmp_path / "nowhere")


def test_a_chat_opens_with_what_the_model_knows(finished: Any, copy: Path) -> None:
    told = opening(finished.out, "alignx")
    axes = [axis.name for axis in finished.recipe.axes]
    assert told.knows.startswith(f"alignx on base model {finished.recipe.base.model} knows {axes[0]} (")
    assert all(axis in told.knows for axis in axes)
    report = json.loads((finished.out / "report.json").read_text(encoding="utf-8"))
    asked = {" ".join(example["prompt"].split()): example["probe"] for example in report["examples"]}
    assert 0 < len(told.prompts) <= 3
    assert "harmful" not in {asked[prompt] for prompt in told.prompts}
    (copy / "report.json").unlink()  # as an artifact that was pulled may be
    bare = opening(copy, "alignx")
    assert (bare.knows, bare.prompts) == (
        f"alignx on base model {finished.recipe.base.model} knows {', '.join(axes)}, and no other world.",
        (),
    )
