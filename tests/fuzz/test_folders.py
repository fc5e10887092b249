"""Whole folders of strangers: a slice of what `fuzz/folders.py` does for minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # a stranger's folder may be warned of; it must not be a traceback
FUZZ = Path(__file__).parents[2] / "fuzz" / "folders.py"


@pytest.fixture(scope="module")
def folders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_folders", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def root(folders: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("folders")
    folders.make(made)
    return made


def test_no_folder_is_more_than_an_error_of_ours(folders: ModuleType, root: Path) -> None:
    assert folders.fuzz(root, runs=150, seed=1) == {}


def test_whole_folders_open(folders: ModuleType, root: Path, tmp_path: Path) -> None:
    opened = folders.Folders(root, tmp_path)
    with opened.known_base():
        for name, read in opened.targets.values():
            read(tmp_path / name)


def test_an_error_that_is_not_ours_is_a_finding(
    folders: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("axes")

    monkeypatch.setattr("mocae.pipelines.artifact.read_manifest", broken)
    found = folders.fuzz(root, runs=30, seed=0)
    assert any("KeyError in" in finding for finding in found)
