"""Which systems of a recipe differ from another one in a setting: those pairs say what a part of a method buys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mocae.config import ROUTED_SYSTEMS, TRAINED_SYSTEMS, Recipe, SystemConfig, rival_options
from mocae.config.base import Config
from mocae.pipelines.routing import routing_of

__all__ = ["Part", "parts_of"]


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


def _changed(recipe: Recipe, parent: SystemConfig, variant: SystemConfig) -> dict[str, tuple[Any, Any]]:
    before, after = (dict(_flat(_settled(recipe, system))) for system in (parent, variant))
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def _settled(recipe: Recipe, system: SystemConfig) -> dict[str, Any]:
    """Return all options a system runs with: its own, and the recipe's or the method's defaults for the others."""
    if system.policy.partition(":")[0] in TRAINED_SYSTEMS:
        options = rival_options(system, recipe.axis_names, where=f"systems.{system.name}")
        found = options.model_dump(mode="json") if isinstance(options, Config) else dict(options)
        if "order" in found:
            found["order"] = list(found["order"] or recipe.comparison.order or recipe.axis_names)
        return found
    routing, found = routing_of(recipe, system)
    if system.policy in ROUTED_SYSTEMS:  # top_k and threshold are among the options of the policy
        found |= {"routing": routing.model_dump(mode="json", exclude={"top_k", "threshold"})}
        found = {"per_token": False, **found}
    return found


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
