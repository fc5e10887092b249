"""Recipes that come with the package, so that a first run needs no file: the repository's `recipes/`."""

from __future__ import annotations

from pathlib import Path

from mocae.errors import ConfigError, unknown_name
from mocae.progress import say

__all__ = ["find_recipe", "shipped_recipes"]

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
"""Where a wheel has them, and where a checkout does."""


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    folder = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_recipe(path: Path) -> Path:
    """Return the file of a recipe: `path` itself, or what ships under that name when it is a bare name and no file.

    A folder of that name is no recipe and takes nothing's place.

    Raises:
        ConfigError: a bare name that is neither.
    """
    known = shipped_recipes()
    if path.suffix or path.parent != Path() or path.is_file():
        if str(path) in known:
            say(f"recipe {path}: the file of that name in this folder, not the recipe that ships")
        return path
    if path.name not in known:
        raise ConfigError(f"{path}: no such file, and {unknown_name('recipe', path.name, known)}")
    return known[path.name]
