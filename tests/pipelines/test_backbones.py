"""The whole job on a tiny random model of every architecture; nothing is told which one it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mocae
from mocae.evaluation import read_samples
from mocae.pipelines.run import run
from run_for_tests import tiny_recipe
from tiny import ARCHITECTURES, LATENT_ATTENTION, tiny_deepseek_v3, tiny_tokenizer

AXES = ("helpfulness", "honesty")
SYSTEMS: list[Any] = [
    "base",
    *(f"expert:{axis}" for axis in AXES),
    "uniform",
    "alignx",
    "joint",
    {"name": "merged", "policy": "merge:task-arithmetic", "options": {"weights": {"honesty": 0.5}}},
    {"name": "trinityx", "policy": "trinityx", "options": {"max_rows": 4}},
]


def ask_all(base: Path, out: Path, systems: list[Any], *settings: str) -> dict[str, list[str]]:
    """Run a recipe and return the answers of every system."""
    report = run(tiny_recipe(base, *settings, axes=AXES, systems=systems), out=out, progress=False).report
    assert list(report["systems"]) == [s if isinstance(s, str) else s["name"] for s in systems]
    told: dict[str, list[str]] = {}
    for sample in read_samples(out / "samples.jsonl"):
        told.setdefault(sample.system, []).append(sample.answer.text)
    return told


def write_base(architecture: str, folder: Path) -> Path:
    model = ARCHITECTURES.get(architecture, tiny_deepseek_v3)(layers=3)
    model.config.max_position_embeddings = 256
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "architecture", [name if name == "gemma3" else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_the_whole_job_runs(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    told = ask_all(write_base(architecture, tmp_path / "base"), tmp_path / "out", SYSTEMS)
    assert {len(texts) for texts in told.values()} == {18}
    assert [name for name, texts in told.items() if texts == told["base"]] == ["base"]


@pytest.mark.slow
def test_the_whole_job_runs_on_latent_attention_and_sparse_blocks(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    systems = [
        s for s in SYSTEMS if isinstance(s, str) or s["policy"] != "trinityx"
    ]  # its experts are linears of blocks
    targets = f"experts.target_modules=[{', '.join(LATENT_ATTENTION)}]"
    told = ask_all(write_base("deepseek-v3", tmp_path / "base"), tmp_path / "out", systems, targets)
    assert [name for name, texts in told.items() if texts == told["base"]] == ["base"]


def test_no_code_branches_on_the_name_of_a_model() -> None:
    names = re.compile(r"(==|!=|\bin|startswith|case)[\s(\[{]*[\"'](llama|mistral|gemma|deepseek|qwen)", re.IGNORECASE)
    kinds = re.compile(r"model_type\s*(==|!=|\bin\b)|isinstance\([^)]*(Llama|Mistral|Gemma|Deepseek|Qwen)")
    root = Path(mocae.__file__).parent
    found = [
        f"{path.relative_to(root)}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if names.search(line) or kinds.search(line)
    ]
    assert found == []
