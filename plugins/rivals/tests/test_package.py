"""The package stands on public names of mocae alone, and says what it offers."""

from __future__ import annotations

import ast
import importlib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import mocae_rivals
from mocae.errors import MissingPackageError
from mocae.registry import Registry

MODULES = sorted(Path(mocae_rivals.__file__).parent.glob("*.py"))
GROUPS = ("mocae.systems", "mocae.merge_methods", "mocae.trainers", "mocae.bench_parts")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_module_lists_its_names_and_imports_public_ones(path: Path) -> None:
    module = importlib.import_module(f"mocae_rivals.{path.stem}" if path.stem != "__init__" else "mocae_rivals")
    assert all(hasattr(module, name) for name in module.__all__)
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mocae.")
        for alias in node.names
    ]
    assert [name for name in imported if any(part.startswith("_") for part in name.split("."))] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_entry_point_loads(group: str) -> None:
    points = [point for point in entry_points(group=group) if point.module.startswith("mocae_rivals.")]
    assert points
    assert [point.name for point in points if not callable(point.load())] == []


@pytest.mark.parametrize("group", GROUPS)
def test_the_core_knows_what_this_package_brings(group: str) -> None:
    """Each name is told to be of this package where it is not installed."""
    names = {point.name for point in entry_points(group=group) if point.module.startswith("mocae_rivals.")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocae.registry.entry_points", lambda **_: ())
        for name in names:
            with pytest.raises(MissingPackageError, match="part of mocae-rivals"):
                Registry[object]("thing", entry_point_group=group).get(name)
