"""Two processes on a CPU give what one gives: the example in tiny form, then with the base model sharded."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mocae.config import Recipe, dump_recipe
from mocae.pipelines.run import run
from run_for_tests import tiny_base, tiny_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("two_processes", ROOT / "examples" / "two_processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both(example: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one` (this process), `two` and `two-sharded`."""
    root = tmp_path_factory.mktemp("two")
    systems = ["base", *(f"expert:{axis}" for axis in ("helpfulness", "harmlessness", "honesty"))]
    # 10 rows in steps of 4: the last step of two processes is filled up.
    recipe: Recipe = tiny_recipe(
        tiny_base(root / "base"), "axes.honesty.train.options.n=10", systems=[*systems, "alignx", "sequential"]
    )
    (root / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    run(recipe, out=root / "one", progress=False)
    program = (str(ROOT / "tests" / "launched.py"),)
    example.run(root / "recipe.yaml", root / "two", processes=2, program=program)
    return root


def facts(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"{name}.facts.json").read_text(encoding="utf-8"))
    return found


def test_two_processes_really_ran_and_trained_together(both: Path) -> None:
    told = facts(both, "two")
    assert (told["processes"], told["backend"], told["wrapped"]) == (2, "gloo", "DistributedDataParallel")
    assert told["distributed_type"] == "MULTI_CPU"
    assert (told["rows_at_once"], told["accumulation"]) == (2, 1)  # 4 rows a step, shared
    assert json.loads((both / "two" / "report.json").read_text())["environment"]["processes"] == 2


def test_two_processes_find_what_one_finds(example: Any, both: Path) -> None:
    assert example.differences(both / "one", both / "two") == []


def test_a_sharded_base_is_held_in_halves(both: Path) -> None:
    told = facts(both, "two-sharded")
    assert told["processes"] == 2
    assert told["sharded"]
    assert told["held"] == pytest.approx(0.5, abs=0.02)


def test_a_sharded_base_finds_what_a_whole_one_finds(example: Any, both: Path) -> None:
    assert example.differences(both / "one", both / "two-sharded") == []


@pytest.fixture(scope="module")
def expert(both: Path) -> str:
    """What `mocae train-expert` in two processes prints; `expert` and `expert-sharded` are its folders."""
    config = ROOT / "recipes" / "accelerate" / "two-cpus.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    words = ["train-expert", str(both / "recipe.yaml"), "--axis", "honesty", "--out", str(both / "expert")]
    command = [*launcher, str(ROOT / "tests" / "launched.py"), *words, "--processes", "2", "--no-progress"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_an_expert_is_trained_by_two_processes_and_told_once(both: Path, expert: str) -> None:
    told, sharded = facts(both, "expert"), facts(both, "expert-sharded")
    assert (told["processes"], told["wrapped"], told["rows_at_once"]) == (2, "DistributedDataParallel", 2)
    assert (sharded["processes"], sharded["sharded"]) == (2, True)
    folders = [both / name / "experts" / "honesty" for name in ("expert", "expert-sharded")]
    assert expert.splitlines() == [str(folder) for folder in folders]


@pytest.mark.parametrize("name", ["expert", "expert-sharded"])
def test_it_is_the_expert_of_one_process(both: Path, expert: str, name: str) -> None:
    alone, shared = (
        load_file(both / run / "experts" / "honesty" / "adapter_model.safetensors") for run in ("one", name)
    )
    assert alone.keys() == shared.keys()
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, atol=1e-4, rtol=0)


def test_a_difference_is_told(example: Any, both: Path, tmp_path: Path) -> None:
    other = shutil.copytree(both / "one", tmp_path / "other")
    record = other / "experts" / "honesty" / "training.json"
    record.write_text(record.read_text().replace('"n_steps": 3', '"n_steps": 4'))
    assert example.differences(both / "one", other) == ["experts/honesty/training.json: n_steps 3 and 4"]
