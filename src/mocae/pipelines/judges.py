"""The judges of a recipe, trained first where they need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mocae.config import Recipe
from mocae.judges import JUDGES, Judge
from mocae.pipelines.rows import Rows
from mocae.pipelines.store import Store, key_of

__all__ = ["Judges", "make_judges"]


@dataclass(frozen=True, slots=True)
class Judges:
    """The judges, and the key of what they were trained on."""

    judges: Sequence[Judge]
    key: str


def make_judges(recipe: Recipe, rows: Rows, store: Store) -> Judges:
    """Return the judges in the recipe's order."""
    judges = [JUDGES.get(config.judge)(**config.options) for config in recipe.judges]
    return Judges(judges, key_of({}))
