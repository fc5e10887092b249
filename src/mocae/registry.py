"""One registry for every kind of plug-in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar, cast

from mocae.errors import PluginError, unknown_name

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects; built-in entries are import strings, loaded when first asked for.

    Args:
        what: the word for messages ("policy", "judge").
        entry_point_group: group searched when a name is not known, so that an installed package can add
            `package/name` without being imported first.
        builtin: name -> "module:attribute", with a one-line description.
    """

    def __init__(self, what: str, *, entry_point_group: str, builtin: dict[str, tuple[str, str]] | None = None) -> None:
        self.what = what
        self._group = entry_point_group
        self._lazy: dict[str, tuple[str, str]] = dict(builtin or {})
        self._loaded: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds an object under `name`.

        Raises:
            PluginError: the name is taken; nothing is overwritten in silence.
        """

        def add(item: T) -> T:
            if name in self._loaded or name in self._lazy:
                raise PluginError(f"{self.what} {name!r} is already registered; choose another name")
            self._loaded[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """Return the object registered under `name`.

        Raises:
            PluginError: the name is not known (the message names the nearest one), or it does not load.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def describe(self) -> dict[str, str]:
        """Return every known name with its one-line description, without importing lazy entries."""
        told = {name: text for name, (_, text) in self._lazy.items()}
        for name, item in self._loaded.items():
            told.setdefault(name, (getattr(item, "__doc__", None) or "").strip().split("\n")[0])
        for point in entry_points(group=self._group):
            told.setdefault(point.name, f"from {point.value}")
        return dict(sorted(told.items()))

    def __contains__(self, name: str) -> bool:
        return name in self.describe()

    def __iter__(self) -> Iterator[str]:
        return iter(self.describe())

    def _load(self, name: str) -> T:
        if name in self._lazy:
            module, _, attribute = self._lazy[name][0].partition(":")
            loaded: Any = getattr(importlib.import_module(module), attribute)
            return cast(T, loaded)
        for point in entry_points(group=self._group):
            if point.name == name:
                try:
                    return cast(T, point.load())
                except Exception as error:  # a broken plug-in must not look like our fault
                    raise PluginError(f"{self.what} {name!r} ({point.value}) does not load: {error}") from error
        raise PluginError(unknown_name(self.what, name, self.describe()))
