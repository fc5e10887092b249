"""Names of other packages: listed with a line from their source, and refused in one line where they are not there."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mocae.errors import MissingPackageError, PluginError
from mocae.registry import Registry

SOURCE = '''
"""A module that must not be imported to be listed."""

raise RuntimeError("imported")


class Kind:
    """Something of another package.

    More of it.
    """
'''


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """Systems of which one is built in and two are in a package that fails at its import."""
    (tmp_path / "listed_from_source.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("theirs/kind", "listed_from_source:Kind", "mocae.systems"),
        EntryPoint("theirs/lost", "listed_from_source:Lost", "mocae.systems"),
    ]
    monkeypatch.setattr("mocae.registry.entry_points", lambda group: points if group == "mocae.systems" else [])
    return Registry("system", entry_point_group="mocae.systems", builtin={"own": ("math:pi", "one of our own")})


def test_names_are_listed_without_an_import(registry: Registry[Any]) -> None:
    assert registry.describe() == {
        "own": "one of our own",
        "theirs/kind": "Something of another package",
        "theirs/lost": "from listed_from_source:Lost",
    }
    assert list(registry) == ["own", "theirs/kind", "theirs/lost"]
    assert "theirs/kind" in registry
    assert "xlora" not in registry


def test_what_does_not_load_is_said(registry: Registry[Any]) -> None:
    with pytest.raises(PluginError, match=r"'theirs/kind' \(listed_from_source:Kind\) does not load: imported"):
        registry.get("theirs/kind")
    with pytest.raises(PluginError, match=r"unknown system 'theirs/kin'.*Did you mean 'theirs/kind'"):
        registry.get("theirs/kin")


def test_a_well_known_name_says_what_brings_it(registry: Registry[Any]) -> None:
    with pytest.raises(MissingPackageError) as refusal:
        registry.get("xlora")
    assert str(refusal.value) == (
        "system 'xlora': part of mocae-rivals, which is not installed; run: pip install -e plugins/rivals"
    )
    assert refusal.value.advice in str(refusal.value)
