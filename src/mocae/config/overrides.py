"""`--set a.b=c`: one dotted key of a recipe replaced before it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from mocae.config.base import Config
from mocae.config.yaml import read_yaml
from mocae.errors import ConfigError, unknown_name

__all__ = ["Place", "apply_override", "override_model"]

C = TypeVar("C", bound=Config)

Place = tuple[str | int, ...]
"""Where a value stands: keys of mappings and indices of lists, from the top."""

_IDENTITIES = ("name", "judge", "source")
"""Keys by which an item of a list may be called instead of by its index."""


def apply_override(data: dict[str, Any], override: str, *, option: str = "--set") -> Place:
    """Set one value in `data`, in place, and return where.

    The part after `=` is YAML: `10`, `5e-4`, `null`, `[0.0, 0.5]`, `{split: test}`. An item of a list is
    called by its index (`axes.0`) or by its name (`axes.helpfulness`, `judges.refusal`). A missing mapping
    on the way is made; whether its keys are known is checked with the recipe. Messages name the `option`.

    Raises:
        ConfigError: no `=`, no key, or the key leads through something that has no parts.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    where = f"{option} {override}"
    if not equals or not all(keys):
        raise ConfigError(f"{where}: not a setting. Accepted: key=value with a dotted key, as in experts.r=16")
    value = read_yaml(text, where)
    target: Any = data
    place: list[str | int] = []
    for position, key in enumerate(keys):
        if isinstance(target, list) and len(target) == 1 and _index(target, key) is None:
            target = _enter(target, 0, place)  # [source] and source are the same thing, see SourceConfig
        if isinstance(target, list):
            step: str | int = _item(target, key, where, ".".join(keys[:position]))
        elif isinstance(target, dict):
            step = key
        else:
            raise ConfigError(f"{where}: {'.'.join(keys[:position])} is {target!r} and has no part {key!r}")
        if position == len(keys) - 1:
            target[step] = value
            place.append(step)
        else:
            target = _enter(target, step, place)
    return tuple(place)


def _enter(target: Any, step: str | int, place: list[str | int]) -> Any:
    """Return the part of `target` at `step`, an empty mapping if there is none yet, and note the step."""
    place.append(step)
    if isinstance(target, dict) and target.get(step) is None:
        target[step] = {}
    return target[step]


def _index(items: Sequence[Any], key: str) -> int | None:
    """Return the index that `key` calls, None when it is neither an index nor one item's name."""
    if key.isdecimal():
        return int(key) if int(key) < len(items) else None
    named = [
        index
        for index, item in enumerate(items)
        if item == key or (isinstance(item, dict) and key in [item.get(identity) for identity in _IDENTITIES])
    ]
    return named[0] if len(named) == 1 else None


def _item(items: Sequence[Any], key: str, where: str, parent: str) -> int:
    index = _index(items, key)
    if index is not None:
        return index
    names = [str(i) for i in range(len(items))]
    for item in items:
        names += [str(item[identity]) for identity in _IDENTITIES if isinstance(item, dict) and identity in item]
    raise ConfigError(f"{where}: {unknown_name(f'item of {parent}', key, set(names))}")


def override_model(config: C, changes: Any, *, where: str) -> C:
    """Return a part of a recipe with nested `changes` made to it.

    Raises:
        ConfigError: a key is not known or a value does not fit; the message opens with `where`.
    """
    if not isinstance(changes, dict):
        raise ConfigError(f"{where}: got {changes!r}; expected a mapping of settings to change")
    try:
        return type(config).model_validate(_deep(config.model_dump(), changes))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}.{key}: {first['msg']}; got {first['input']!r}") from error


def _deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return `below` with the values of `above`, mapping by mapping."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = _deep(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both
