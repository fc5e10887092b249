"""One whole run, shared by the tests of everything that needs a finished folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mocae.config import Recipe
from mocae.pipelines.run import RunResult, run
from run_for_tests import tiny_base, tiny_recipe


@dataclass(frozen=True)
class Finished:
    """A finished run; its folder is never written to."""

    base: Path
    out: Path
    recipe: Recipe
    result: RunResult


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("run")
    base = tiny_base(root / "base")
    recipe = tiny_recipe(base)
    return Finished(base, root / "out", recipe, run(recipe, out=root / "out", progress=False))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished folder that may be changed."""
    return shutil.copytree(finished.out, tmp_path / "out")


@dataclass
class Work:
    """What was trained, asked and fitted, in order."""

    trained: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fitted: list[int] = field(default_factory=list)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Count what stages do, wherever the pipelines call it, and draw no page, which takes longest."""
    done = Work()

    def counted(function: Callable[..., Any], note: Callable[..., object]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            note(*args, **kwargs)
            return function(*args, **kwargs)

        return call

    notes: dict[str, Callable[..., object]] = {
        "finetune": lambda *_, label, **__: done.trained.append(label),
        "examine": lambda *_, label, **__: done.asked.append(label),
        "fit_router": lambda data, **_: done.fitted.append(len(data.labels)),
    }
    monkeypatch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
    places = ("mocae.pipelines.", "mocae.stages.", "mocae.evaluation.")
    for module in [m for name, m in sys.modules.items() if name.startswith(places)]:
        for name, note in notes.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counted(getattr(module, name), note))
    return done
