"""YAML as recipes use it: numbers as in YAML 1.2, no key twice in one mapping."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from mocae.errors import ConfigError

__all__ = ["dump_yaml", "read_yaml"]

# YAML 1.1 reads 5e-4 as text; YAML 1.2, and everybody who writes a learning rate, reads a number.
_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_MOST_PLACES = 100_000


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys; PyYAML keeps the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key: Any = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that writes what `_Loader` reads back: text that looks like a number gets quotes."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds these line breaks of Unicode into spaces unless they are escaped.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))


def read_yaml(text: str, where: str) -> Any:
    """Return the value a YAML text holds; every part of it stands alone, also where the text uses an alias.

    Raises:
        ConfigError: the text is not YAML, has a key twice, or holds itself. `where` opens the message.
    """
    try:
        # _Loader is a SafeLoader: it builds plain values only.
        return _unshared(yaml.load(text, Loader=_Loader), itertools.count())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}: {line}not valid YAML: {problem}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # PyYAML lets through what int, float or date say of text that only looks like one: 2001-00-01, !!bool maybe.
        raise ConfigError(f"{where}: not valid YAML: a value does not fit its type ({error})") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: not valid YAML: nested too deep, or an alias holds itself") from error


def dump_yaml(value: Any) -> str:
    """Return YAML that `read_yaml` reads back as the same value, keys in the order given."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _unshared(value: Any, places: Iterator[int]) -> Any:
    """Return a copy in which no two places are one object, so that setting one place sets one place.

    Raises:
        YAMLError: aliases of aliases make more places than memory would hold; `places` counts them.
    """
    if next(places) > _MOST_PLACES:
        raise yaml.YAMLError(f"aliases make more than {_MOST_PLACES} values of it")
    if isinstance(value, dict):
        return {key: _unshared(item, places) for key, item in value.items()}
    return [_unshared(item, places) for item in value] if isinstance(value, list) else value
