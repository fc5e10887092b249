"""The examples as modules, and what the first one makes on a tiny random base model, which others start from."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from run_for_tests import tiny_base

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def load_example() -> Iterator[Callable[[str], ModuleType]]:
    """Return the example of a name; examples may import one another, as when they are run from their folder."""
    loaded: list[str] = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture(scope="session")
def own(load_example: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What own_adapters.py makes: the folder with `adapters`, `prompts.jsonl` and `artifact`, and the run's result."""
    example: Any = load_example("own_adapters")
    out = tmp_path_factory.mktemp("own")
    base = str(tiny_base(out / "base"))
    for axis, lora in example.ADAPTERS.items():
        example.train(base, example.axis_rows(axis, n=8), out / "adapters" / axis, lora)
    example.write_prompts(out / "prompts.jsonl", n=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocae.pipelines.run.write_report", lambda report, folder, samples: folder)
        return out, example.build(base, out, judge="coin", max_new_tokens=2, progress=False)
