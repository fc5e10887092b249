"""Recipes from YAML and back: reading, overrides, environment, and messages that say which key is wrong."""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mocae.config.overrides import Place, apply_override
from mocae.config.recipe import Recipe
from mocae.config.shipped import find_recipe
from mocae.config.yaml import dump_yaml, read_yaml
from mocae.errors import ConfigError, unknown_name

__all__ = ["ENVIRONMENT", "dump_recipe", "load_recipe", "parse_recipe"]

ENVIRONMENT = {"MOCAE_DATA_ROOT": "data_root", "MOCAE_BASE_MODEL": "base.model"}
"""Variables that fill a key which is null or absent; what a recipe or --set says comes first."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file, with `overrides` ("experts.r=16") applied before it is checked.

    Args:
        path: the file, or the bare name of a recipe that ships with the package ("pocket").
        overrides: settings as after `--set`, applied in order.

    Raises:
        ConfigError: the file cannot be read, or something in it is wrong; one line a problem, each with
            the file, the dotted key and what is accepted there.
    """
    file = find_recipe(Path(path))
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start}). Accepted: a YAML recipe") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}. Accepted: a YAML recipe") from error
    data = read_yaml(text, str(file))
    if data is None:
        raise ConfigError(f"{file}: empty. Accepted: a YAML recipe; `mocae ls recipes` lists some to copy")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{file}: got a {type(data).__name__} at the top. Accepted: a mapping with the keys of a recipe, "
            f"{', '.join(Recipe.model_fields)}"
        )
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"{file}: the key {key!r} is no text. Accepted: {', '.join(Recipe.model_fields)}")
    return parse_recipe(data, overrides, where=str(file))


def parse_recipe(data: dict[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """Return the recipe that plain values describe; `data` is changed by the overrides.

    Args:
        data: mapping as read from YAML or JSON.
        overrides: settings as after `--set`, applied in order.
        where: opens every message.

    Raises:
        ConfigError: something is wrong; one line a problem.
    """
    places = {apply_override(data, override): override for override in overrides}
    _fill_from_environment(data)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = (_line(detail, where, places) for detail in error.errors(include_url=False))
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def dump_recipe(recipe: Recipe) -> str:
    """Return YAML that loads as the same recipe."""
    return dump_yaml(recipe.model_dump(mode="json"))


def _fill_from_environment(data: dict[str, Any]) -> None:
    for variable, dotted in ENVIRONMENT.items():
        value = os.environ.get(variable)
        *parents, key = dotted.split(".")
        target: Any = data
        for parent in parents:
            target = target.get(parent) if isinstance(target, dict) else None
        if value and isinstance(target, dict) and target.get(key) is None:
            target[key] = value


def _line(detail: ErrorDetails, where: str, places: dict[Place, str]) -> str:
    """Return one problem as `file: dotted.key: what is wrong`."""
    loc = detail["loc"]
    told = next((f"--set {text}" for place, text in places.items() if loc[: len(place)] == place), where)
    key = ".".join(map(str, loc))
    inner = detail.get("ctx", {}).get("key")
    if inner:
        key = f"{key}.{inner}" if key else str(inner)
    return f"{told}: {key}: {_sentence(detail)}" if key else f"{told}: {_sentence(detail)}"


def _sentence(detail: ErrorDetails) -> str:
    kind, loc = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return unknown_name("key", str(loc[-1]), _keys_at(loc[:-1]))
    if kind == "missing":
        return "missing; this key is required"
    if kind == "recipe_problem":
        return detail["msg"]
    got = repr(detail["input"])
    got = got if len(got) <= 60 else f"{got[:57]}..."
    return f"got {got}; {detail['msg'].replace('Input should', 'it should')}"


def _keys_at(loc: Iterable[str | int]) -> list[str]:
    """Return the keys that the model at `loc` accepts."""
    model: type[BaseModel] = Recipe
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the recipe model inside an annotation such as `tuple[AxisConfig, ...]`, None if there is none."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
