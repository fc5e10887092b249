"""Which systems of a recipe differ from another one in a setting: those pairs say what a part of a method buys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mocae.config import Recipe, SystemConfig
from mocae.systems import build_system, build_systems

__all__ = ["Part", "parts_of", "rivals_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """A system, the plain system with the same policy, and the settings in which the first differs.

    Attributes:
        system: the variant.
        parent: the first system of the recipe with the same policy and no options of its own; else the first.
        changed: dotted option -> (value of the parent, value of the variant), defaults included.
    """

    system: str
    parent: str
    changed: dict[str, tuple[Any, Any]]


def parts_of(recipe: Recipe) -> list[Part]:
    """Return every variant with its parent, in the order of the recipe."""
    by_policy: dict[str, list[SystemConfig]] = {}
    for system in recipe.systems:
        by_policy.setdefault(system.policy, []).append(system)
    parents = {policy: next((s for s in same if not s.options), same[0]) for policy, same in by_policy.items()}
    return [
        Part(system.name, parents[system.policy].name, _changed(recipe, parents[system.policy], system))
        for system in recipe.systems
        if system is not parents[system.policy]
    ]


def rivals_of(recipe: Recipe) -> list[str]:
    """Return the systems that all others are compared with: the plain ones of kinds that are rivals."""
    systems = build_systems(recipe)
    return [system.name for system in systems if system.rival and system.name == system.policy]


def _changed(recipe: Recipe, parent: SystemConfig, variant: SystemConfig) -> dict[str, tuple[Any, Any]]:
    before, after = (
        dict(_flat(build_system(system, recipe.axis_names).settled(recipe).model_dump(mode="json")))
        for system in (parent, variant)
    )
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
