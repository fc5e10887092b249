from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mocae

ROOT = Path(mocae.__file__).parent
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(ROOT)], "mocae.") if not m.name.endswith("__main__"))
PACKAGES = ["mocae", *(name for name in MODULES if (ROOT.parent / name.replace(".", "/")).is_dir())]
HEAVY = ("torch", "transformers", "sklearn", "matplotlib", "datasets", "pandas")


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_lists_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert isinstance(module.__all__, list)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_lists_what_it_offers(name: str) -> None:
    package = importlib.import_module(name)
    offered = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_") and getattr(value, "__module__", "").startswith(f"{name}.")
    }
    assert offered <= set(package.__all__)


@pytest.mark.parametrize(
    "statement",
    [
        "import mocae",
        "import mocae.cli",
        "import mocae.config",
        "import mocae.metrics",
        "import mocae.types, mocae.axes, mocae.registry",
        "import mocae.cli.app as a\ntry: a.main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_imports_stay_light(statement: str) -> None:
    script = f"{statement}\nimport sys; print('heavy:', *sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_the_package_offers_load_and_run_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"load", "run"} <= set(dir(mocae))
    with pytest.raises(AttributeError, match="module 'mocae' has no attribute 'train'"):
        _ = mocae.train  # type: ignore[attr-defined]


def test_types_are_shipped() -> None:
    assert (ROOT / "py.typed").is_file()
