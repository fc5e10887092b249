"""One registry for every kind of plug-in."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from mocae.errors import MissingPackageError, PluginError, unknown_name

__all__ = ["Registry"]

T = TypeVar("T")

_RIVALS = {
    "mocae.systems": {"arrow", "h3fusion", "hma", "xlora"},
    "mocae.merge_methods": {"dare", "dare-ties", "hma", "linear-peft", "lox", "slerp", "sparse-consensus", "ties"},
    "mocae.trainers": {"mezo"},
    "mocae.bench_parts": {"arrow", "feed-forward", "xlora"},
}
"""Entry point group -> names that `plugins/rivals` brings, for what is said where it is not installed."""


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
        self._declared: set[str] = set()

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

    def declare(self, name: str, item: T) -> None:
        """Put what a recipe declares under `name`, in place of what an earlier recipe declared.

        Raises:
            PluginError: the name is that of something else that is registered.
        """
        if self.has_registered(name) and self.get(name) != item:
            raise PluginError(f"{self.what} {name!r} is already registered; choose another name")
        self._loaded[name] = item
        self._declared.add(name)

    def has_registered(self, name: str) -> bool:
        """Return whether the name is known and no recipe declared it."""
        return name not in self._declared and name in self

    def get(self, name: str) -> T:
        """Return the object registered under `name`.

        Raises:
            PluginError: the name is not known (the message names the nearest one), or it does not load.
            MissingPackageError: it is one of a package that is not installed.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def describe(self) -> dict[str, str]:
        """Return every known name with its one-line description; nothing is imported for it but parent packages."""
        lines = {name: text for name, (_, text) in self._lazy.items()}
        for name, item in self._loaded.items():
            lines.setdefault(name, _first_line(getattr(item, "__doc__", None)))
        for name, point in self._points().items():
            if name not in lines:
                lines[name] = _line_of_source(point)
        return dict(sorted(lines.items()))

    @property
    def builtin(self) -> frozenset[str]:
        """The names that this package brings."""
        return frozenset(self._lazy)

    def __contains__(self, name: str) -> bool:
        return name in set(self)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._lazy, *self._loaded, *self._points()}))

    def _points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._group)}

    def _load(self, name: str) -> T:
        if name in self._lazy:
            module, _, attribute = self._lazy[name][0].partition(":")
            loaded: Any = getattr(importlib.import_module(module), attribute)
            return cast(T, loaded)
        point = self._points().get(name)
        if point is None:
            if name in _RIVALS.get(self._group, ()):
                raise MissingPackageError(
                    f"{self.what} {name!r}",
                    "part of mocae-rivals, which is not installed; run: pip install -e plugins/rivals",
                )
            raise PluginError(unknown_name(self.what, name, self))
        try:
            return cast(T, point.load())
        except Exception as error:  # a broken plug-in must not look like our fault
            raise PluginError(f"{self.what} {name!r} ({point.value}) does not load: {error}") from error


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0].removesuffix(".")


def _line_of_source(point: EntryPoint) -> str:
    """Return the first docstring line of a class or function, read from its source: importing it may take seconds."""
    try:
        spec = importlib.util.find_spec(point.module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        kinds = (ast.ClassDef, ast.FunctionDef)
        named = next(node for node in tree.body if isinstance(node, kinds) and node.name == point.attr)
        return _first_line(ast.get_docstring(named))
    except Exception:  # built in another way, or broken: it is listed all the same
        return f"from {point.value}"
