"""How the router of a system is fitted: the recipe's settings, changed by the system's own."""

from __future__ import annotations

from typing import Any

from mocae.config import ROUTED_SYSTEMS, Recipe, RoutingConfig, SystemConfig, override_model

__all__ = ["routing_of"]


def routing_of(recipe: Recipe, system: SystemConfig) -> tuple[RoutingConfig, dict[str, Any]]:
    """Return how the router of a system is fitted, and the options its policy is built with.

    Raises:
        ConfigError: `options.routing` does not fit.
    """
    options, routing = dict(system.options), recipe.routing
    if "routing" in options:
        routing = override_model(routing, options.pop("routing"), where=f"systems.{system.name}.options.routing")
    if system.policy in ROUTED_SYSTEMS:
        options = {"top_k": routing.top_k, "threshold": routing.threshold, **options}
    return routing, options
