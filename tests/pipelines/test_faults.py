"""What goes wrong outside of us: full disks, folders that cannot be written, files that were damaged or exchanged.

Each is refused by the command line in one line with its exit code, or the same command goes on once it is put right.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mocae
from mocae.cli import main
from mocae.config import dump_recipe
from mocae.errors import ArtifactError, ConfigError
from mocae.models import load_base
from mocae.pipelines.manifest import read_manifest
from mocae.pipelines.run import run, train_expert
from mocae.stages.store import Store
from run_for_tests import tiny_base, tiny_recipe

Refused = Callable[..., str]
LAST = "honesty=1"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Return a function that runs `mocae` with words, wants this exit code and one line, and returns the line."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def call(*words: object, code: int = 1) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (caught.value.code, out, len(lines)) == (code, "", 1), err
        assert "Traceback" not in err
        return lines[0]

    return call


@contextmanager
def room(n_bytes: int) -> Iterator[None]:
    """A context in which no file can become larger than this, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A context with a disk of its own at `folder`."""
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root makes disks")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def same_systems(report: dict[str, Any], whole: dict[str, Any]) -> bool:
    found = {name: {**system, "cost": None} for name, system in report["systems"].items()}
    return all({**whole["systems"][name], "cost": None} == system for name, system in found.items())


@pytest.mark.parametrize(
    ("settings", "n_bytes", "message"),
    [
        ((), 6_000, r"experts/helpfulness: could not be written \(.*File too large"),  # the adapter itself
        (("experts.optimizer.checkpoint_steps=1",), 14_000, r"experts/helpfulness: could not be written \("),
    ],
)
def test_a_run_without_room_goes_on_where_it_stopped(
    finished: Any, tmp_path: Path, work: Any, settings: tuple[str, ...], n_bytes: int, message: str
) -> None:
    recipe = tiny_recipe(finished.base, *settings, systems=["base"])
    with room(n_bytes), pytest.raises(ArtifactError, match=message):
        run(recipe, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "experts").exists()
    again = run(recipe, out=tmp_path / "out", progress=False)
    assert same_systems(again.report, finished.result.report)


def test_a_full_disk_is_told_and_the_run_goes_on_with_more_room(finished: Any, tmp_path: Path, work: Any) -> None:
    recipe = tiny_recipe(finished.base, systems=["base"])
    with disk(tmp_path / "disk", "size=64k") as folder:
        with pytest.raises(ArtifactError, match=r"No space left on device.*Free space or choose another --out"):
            run(recipe, out=folder / "out", progress=False)
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        again = run(recipe, out=folder / "out", progress=False)
        assert same_systems(again.report, finished.result.report)


@pytest.mark.parametrize("below", [".", "new"])
def test_a_read_only_disk_is_refused(finished: Any, tmp_path: Path, refused: Refused, below: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    with disk(tmp_path / "disk", "ro") as folder:
        line = refused("run", recipe, "--out", folder / below, "--no-progress")
    assert line == f"error: {folder / below}: cannot be written (Read-only file system); give another --out"


def test_a_second_run_on_one_folder_is_refused(finished: Any, tmp_path: Path, refused: Refused) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    with Store(tmp_path / "out").locked():
        line = refused("run", recipe, "--out", tmp_path / "out", "--no-progress")
    assert line == (
        f"error: {tmp_path / 'out'}: another run is writing this folder; wait for it, or give another --out"
    )


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _tamper(path: Path) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"axes": ["../../../etc"]}), encoding="utf-8")


DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    ("experts/honesty/adapter_model.safetensors", _flip, "has changed since the run finished it; copy the folder"),
    ("experts/honesty/adapter_model.safetensors", _cut, "has changed since the run finished it"),
    ("experts/honesty/adapter_config.json", Path.unlink, "is missing since the run finished it"),
    ("router/alignx/router.safetensors", _cut, "has changed since the run finished it"),
    ("manifest.json", _tamper, "damaged (axes.0: "),
    ("manifest.json", _cut, "damaged"),
    ("manifest.json", Path.unlink, "no manifest.json, so this is no finished run"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_every_command_refuses_a_damaged_artifact(
    copy: Path, tmp_path: Path, refused: Refused, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(copy / name)
    for words in (
        ("chat", copy, "--prompt", "Name a river."),
        ("serve", copy, "--port", "0"),
        ("export", copy, "--to", "peft", "--weights", LAST, "--out", tmp_path / "export"),
        ("eval", copy, "--suite", "pocket", "--out", tmp_path / "eval", "--limit", "1"),
    ):
        assert message in refused(*words)
    assert not (tmp_path / "export").exists()


def test_the_expert_of_a_finished_run_is_not_replaced(
    finished: Any, copy: Path, tmp_path: Path, work: Any, refused: Refused
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    words = ("train-expert", recipe, "--axis", "honesty", "--out", copy, "--no-progress", "--set")
    line = refused(*words, "axes.honesty.train.limit=8")
    assert "experts/honesty: belongs to a finished run" in line
    assert "Give another --out, or `mocae run` the recipe into this folder" in line
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert work.trained == []
    assert train_expert(finished.recipe, axis="honesty", out=copy, progress=False) == copy / "experts" / "honesty"


def test_a_run_that_stops_between_expert_and_router_is_not_taken_for_whole(
    finished: Any, copy: Path, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tiny_recipe(finished.base, "axes.honesty.train.options.seed=5")
    with monkeypatch.context() as patch:
        patch.setattr("mocae.stages.fitting.fit_router", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(changed, out=copy, systems=["alignx"], progress=False, overwrite=True)
    with pytest.raises(ArtifactError, match=r"experts/honesty: was made anew, with other settings, after the run was"):
        mocae.load(copy, device="cpu")
    run(changed, out=copy, systems=["alignx"], progress=False, overwrite=True)
    assert read_manifest(copy)["axes"] == list(finished.recipe.axis_names)


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_another_base_model_is_refused(finished: Any, tmp_path: Path, refused: Refused) -> None:
    other = tiny_base(tmp_path / "other", seed=1)
    words = ("export", finished.out, "--to", "peft", "--weights", LAST, "--out", tmp_path / "export")
    line = refused(*words, "--base-model", other)
    assert "made for base model" in line
    assert "give base_model the same one" in line


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", _cut, "incomplete metadata, file not fully covered"),
        ("model.safetensors", Path.unlink, "its weights are missing (model.safetensors); fetch the model again"),
        ("model.safetensors", lambda path: path.rename(path.with_name("pytorch_model.bin")), "a pickle, which"),
        ("config.json", _cut, "not a valid JSON file"),
        ("config.json", lambda path: path.write_text('{"model_type": "llama", "hidden_size": "x"}'), "hidden_size"),
        ("config.json", lambda path: path.write_text('{"model_type": "llama", "num_attention_heads": 0}'), "modulo"),
        ("tokenizer.json", _cut, "cannot be loaded"),
        ("tokenizer.json", lambda path: path.write_text("{}"), "cannot be loaded"),
    ],
)
def test_a_damaged_base_model_is_refused(
    finished: Any, tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    base = shutil.copytree(finished.base, tmp_path / "base")
    damage(base / name)
    told = r"cannot be loaded: .*Accepted: a folder with config\.json|its weights are "
    with pytest.raises(ConfigError, match=told) as caught:
        load_base(base, dtype="fp32", device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_does_not_run(finished: Any, tmp_path: Path, refused: Refused) -> None:
    base, ran = shutil.copytree(finished.base, tmp_path / "base"), tmp_path / "ran"
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "own.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="contains custom code which must be executed"):
        load_base(base, dtype="fp32", device="cpu")
    # An artifact can name such a model, but not ask for its code to run.
    artifact = shutil.copytree(finished.out, tmp_path / "out")
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    manifest["base"] |= {"model": str(base), "trust_remote_code": True}
    (artifact / "manifest.json").write_text(json.dumps(manifest | {"trust_remote_code": True}), encoding="utf-8")
    assert "contains custom code" in refused("chat", artifact, "--prompt", "Name a river.", code=2)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["samples.jsonl", "report.json"])
def test_a_log_that_was_cut_is_refused(copy: Path, refused: Refused, name: str) -> None:
    _cut(copy / name)
    line = refused("compare", f"{copy}:base", f"{copy}:alignx")
    assert "samples.jsonl:" in line if name == "samples.jsonl" else "no finished evaluation" in line


def test_a_data_file_that_is_not_there_is_refused_before_anything_is_made(
    finished: Any, tmp_path: Path, refused: Refused
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(finished.recipe), encoding="utf-8")
    words = ("run", recipe, "--out", tmp_path / "out", "--set", f"data_root={tmp_path}")
    changed = ("--set", "axes.honesty.train.0.source=table", "--set", "axes.honesty.train.0.path=gone.csv")
    named = ("--set", "axes.honesty.train.0.options={probe: question, columns: {prompt: q, response: a}}")
    assert "axes.honesty.train.0.path: no file" in refused(*words, *changed, *named, code=2)
    assert not (tmp_path / "out").exists()
