"""Recipes from YAML and back: reading, overrides, environment, and messages that say which key is wrong."""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mocae.config.overrides import Place, apply_override
from mocae.config.recipe import Recipe
from mocae.config.shipped import find_recipe
from mocae.config.yaml import dump_yaml, read_yaml
from mocae.errors import ConfigError, unknown_name

__all__ = ["ENVIRONMENT", "WrongValuesError", "checked_values", "dump_recipe", "load_recipe", "parse_recipe"]

_ROUNDS = 4
"""Times that values are checked without what was wrong before."""
_Model = TypeVar("_Model", bound=BaseModel)
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
    return checked_values(Recipe, data, where=where, places=places)


def checked_values(model: type[_Model], data: Any, *, where: str, places: Mapping[Place, str]) -> _Model:
    """Return plain values as what they should be.

    Args:
        model: what they should be.
        data: as read from YAML.
        where: opens every message.
        places: keys that an override set, and the override.

    Raises:
        WrongValuesError: something is wrong; one line a problem, with its dotted key.
    """
    problems: dict[str, None] = {}
    left_out: set[Place] = set()
    for _ in range(_ROUNDS):
        try:
            value = model.model_validate(data)
        except ValidationError as error:
            data = copy.deepcopy(data)
            for detail in error.errors(include_url=False):
                if (place := _place(detail)) not in left_out:  # else it is missing since it was left out
                    problems |= dict.fromkeys(_lines(detail, model, where, places))
                left_out.add(place)
                _leave_out(data, place)
        else:
            if not problems:
                return value
            raise WrongValuesError("\n".join(problems), value)
    raise WrongValuesError("\n".join(problems), None)


class WrongValuesError(ConfigError):
    """Values are not what they should be; `rest` is made of the others, None where these are not enough."""

    def __init__(self, message: str, rest: BaseModel | None) -> None:
        super().__init__(message)
        self.rest = rest


def _place(detail: ErrorDetails) -> Place:
    return tuple(map(str, (*detail["loc"], *filter(None, detail.get("ctx", {}).get("key", "").split(".")))))


def _leave_out(data: Any, place: Place) -> None:
    """Remove a key from nested values, so that what does not depend on it can be checked as well."""
    for step in place[:-1]:
        data = data[int(step)] if isinstance(data, list) else data.get(step) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(place[-1], None)


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


def _lines(detail: ErrorDetails, model: type[BaseModel], where: str, places: Mapping[Place, str]) -> Iterator[str]:
    """Yield problems as `file: dotted.key: what is wrong`."""
    loc, context = detail["loc"], detail.get("ctx", {})
    opening = next((f"--set {text}" for place, text in places.items() if loc[: len(place)] == place), where)
    for inner, sentence in ((context.get("key"), _sentence(detail, model)), *context.get("more", ())):
        key = ".".join(str(step) for step in (*loc, inner) if step is not None)
        yield f"{opening}: {key}: {sentence}" if key else f"{opening}: {sentence}"


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return unknown_name("key", str(loc[-1]), _keys_at(model, loc[:-1]))
    if kind == "missing":
        return "missing; this key is required"
    if kind == "recipe_problem":
        return detail["msg"]
    got = repr(detail["input"])
    got = got if len(got) <= 60 else f"{got[:57]}..."
    return f"got {got}; {detail['msg'].replace('Input should', 'it should')}"


def _keys_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    """Return the keys that what lies at `loc` in a model accepts."""
    for step in loc:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the recipe model inside an annotation such as `tuple[AxisConfig, ...]`, None if there is none."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
