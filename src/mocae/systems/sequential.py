"""Sequential tuning: one adapter, one axis after another, asked after each. It shows what is forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from mocae.config import Recipe, SystemConfig
from mocae.config.base import Config, Sequence
from mocae.errors import ConfigError
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Run
from mocae.stages.store import Stage
from mocae.stages.training_plan import TrainingPlan
from mocae.systems.base import with_values
from mocae.systems.joint import OneAdapter

__all__ = ["Sequential"]


class SequentialOptions(Config):
    """Options of a `sequential` system."""

    order: Annotated[tuple[str, ...], Sequence] | None = None
    """Every axis once; null: comparison.order, else as they stand in the recipe."""


class Sequential(OneAdapter):
    """One adapter with the rank of all experts, tuned on one axis after another in `options.order`."""

    Options = SequentialOptions
    rival = False

    def check(self) -> None:
        """Refuse an order that does not name every axis once."""
        super().check()
        order = self.options.order
        if order is not None and sorted(order) != sorted(self.axes):
            raise ConfigError(f"options.order: got {list(order)}; name every axis once ({', '.join(self.axes)})")

    def settled(self, recipe: Recipe) -> Config:
        """Return the options with the order in force."""
        order = self.options.order or recipe.comparison.order or self.axes
        return with_values(self.options, order=tuple(order))

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of an adapter on the rows of all axes, kept as it was after each."""
        plan = super().trains(recipe, base, n_rows)
        return None if plan is None else replace(plan, n_kept=len(self.axes))

    def _adapters(self, run: Run) -> dict[str, Stage]:
        order = self.settled(run.recipe).order  # type: ignore[attr-defined]
        with run.bare():
            return dict(zip(order, run.trainer.sequential(run.rows.train, order), strict=True))

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter as it was after the last axis."""
        return {"adapter": list(self._adapters(run).values())[-1]}

    def on_the_way(self, run: Run) -> dict[str, Stage]:
        """Return the answers after each axis, those after the last being its own."""
        answers = {}
        for i, (axis, adapter) in enumerate(self._adapters(run).items()):
            step = _Step(SystemConfig(name=f"{self.name}-{i + 1}-{axis}", policy=self.policy), self.axes)
            step.adapter = adapter
            answers[axis] = run.answers(self if i == len(self.axes) - 1 else step)
        return answers


class _Step(OneAdapter):
    """The adapter of sequential tuning as it was after one of the axes."""

    adapter: Stage

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter."""
        return {"adapter": self.adapter}
