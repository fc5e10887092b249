"""The systems of this package on a tiny random model of every architecture; nothing is told which one it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.test_backbones import AXES, ask_all, write_base
from tiny import ARCHITECTURES, LATENT_ATTENTION

SYSTEMS: list[Any] = [
    "base",
    *(f"expert:{axis}" for axis in AXES),
    {"name": "ties", "policy": "merge:ties", "options": {"density": 0.5}},
    {"name": "x-lora", "policy": "xlora", "options": {"max_rows": 4}},
    "arrow",
    {"name": "h3fusion", "policy": "h3fusion", "options": {"max_rows": 4, "expert_epochs": 0.5}},
]


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("gemma3", ()),
        *(pytest.param(name, (), marks=pytest.mark.slow) for name in ARCHITECTURES if name != "gemma3"),
        pytest.param(
            "deepseek-v3", (f"experts.target_modules=[{', '.join(LATENT_ATTENTION)}]",), marks=pytest.mark.slow
        ),
    ],
)
def test_the_whole_job_runs(
    architecture: str, settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    texts = ask_all(write_base(architecture, tmp_path / "base"), tmp_path / "out", SYSTEMS, *settings)
    assert {len(answers) for answers in texts.values()} == {18}
    assert [name for name, answers in texts.items() if answers == texts["base"]] == ["base"]
