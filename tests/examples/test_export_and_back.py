"""The example of export and return, on a tiny random base model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
WEIGHTS = {"helpfulness": 0.7, "harmlessness": -0.2, "honesty": 0.4}


@pytest.fixture(scope="module")
def example(load_example: Callable[[str], ModuleType]) -> Any:
    return load_example("export_and_back")


def test_peft_and_transformers_have_the_policys_logits(own: Any, example: Any, tmp_path: Path) -> None:
    found = example.out_and_loaded(own[0] / "artifact", tmp_path, WEIGHTS, progress=False)
    assert found["base model"] > 1e-2
    assert found["peft"] < 1e-4
    assert found["merged"] < 1e-4


def test_llama_cpp_has_its_tokens(own: Any, example: Any, tmp_path: Path) -> None:
    folder = Path(os.environ.get("MOCAE_NODE_LLAMA_CPP", Path(__file__).parents[2] / ".node"))
    if not (folder / "node_modules" / "node-llama-cpp").is_dir() or shutil.which("node") is None:
        pytest.skip(f"node-llama-cpp is not installed in {folder}; see tests/llama_cpp.py")
    policy, theirs = example.tokens_of_llama_cpp(
        own[0] / "artifact", tmp_path, WEIGHTS, llama_cpp=folder, progress=False
    )
    assert policy == theirs
    assert len(policy) == 12


def test_what_came_out_goes_in_again(own: Any, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    assert example.back_in(own[0] / "artifact", tmp_path, progress=False) == []
    other = tmp_path / "other"
    other.mkdir()
    rows = (tmp_path / "again" / "samples.jsonl").read_text().splitlines()
    (other / "samples.jsonl").write_text("\n".join(rows[:-1]))
    (gone,) = [row for row in map(json.loads, rows[-1:]) if row["system"] == "alignx"]
    assert example.differences(own[0] / "artifact", other) == [f"only one run answered {gone['id']}"]
