"""One adapter for all axes: joint tuning, and joint tuning that learns from verdicts too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from mocae.bank import ExpertBank, LoraWeights, load_peft
from mocae.config import Recipe
from mocae.errors import ConfigError
from mocae.merging import Delta
from mocae.models import Generator
from mocae.policies import FixedPolicy, Mixture
from mocae.stages.base_size import BaseSize
from mocae.stages.output import accepted
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.stages.training_plan import TrainingPlan, adapter_plan
from mocae.systems.base import System
from mocae.systems.routers import LearningOptions, LearningSystem

__all__ = ["Joint", "JointOutcomes", "OneAdapter"]


class OneAdapter(System):
    """One adapter on the base model with the rank of all experts together, the stage "adapter"."""

    rival = True
    one_adapter = True

    def load(self, made: Made) -> Generator:
        """Return the base model with the adapter, weight 1."""
        bank = ExpertBank.attach(made.base.model, {"adapter": made.folders["adapter"]})
        return Mixture(made.base, bank, FixedPolicy(torch.ones(1)), mixed=False)

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of an adapter on the rows of all axes."""
        return adapter_plan(recipe, base, self.kind, n_rows, recipe.experts.r * len(self.axes))

    def export_names(self) -> tuple[str, ...] | None:
        """Return its own name."""
        return (self.kind,)

    def constant_weights(self) -> dict[str, float] | None:
        """Return 1 for the adapter."""
        return {self.kind: 1.0}

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return the adapter."""
        return {self.kind: load_peft(made.folders["adapter"], name=self.kind)}


class Joint(OneAdapter):
    """The plain rival of every mixture: one adapter tuned on the rows of all axes at once."""

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter."""
        with run.bare():
            return {"adapter": run.trainer.joint(run.rows.all_of("train"))}


class JointOutcomesOptions(LearningOptions):
    """Options of a `joint_outcomes` system."""

    schedule: Literal["mixed", "after", "alone"] = "mixed"
    """When the accepted answers are learned: mixed with the rows of all axes, after them, or alone."""


class JointOutcomes(OneAdapter, LearningSystem):
    """The fair rival: joint tuning plus the accepted answers to the calibration prompts.

    Without it a win of the router over `joint` may be a win of extra supervision. `after` keeps the accepted answers
    from being outvoted by axis rows that contradict them: it is the stronger rival where axis data conflict.
    """

    Options = JointOutcomesOptions

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter; without verdicts it is that of joint tuning, whatever the schedule.

        Raises:
            ConfigError: no answer was accepted.
        """
        rows, routing = run.rows.all_of("train"), self.routing(run.recipe)
        used = run.verdict_ids(routing)
        learned = accepted(run.verdicts(routing)) if used else []
        if used and not learned:
            raise ConfigError(
                f"systems.{self.name}: no accepted answer to learn from; look at outcomes.jsonl, raise "
                "routing.outcome.max_prompts, or leave this system out"
            )
        with run.bare():
            if not used:
                return {"adapter": run.trainer.joint(rows)}
            train, needs, schedule = run.trainer.joint, [run.outcomes], self.options.schedule
            if schedule == "mixed":
                return {"adapter": train([*rows, *learned], name=self.folder, needs=needs)}
            start = train(rows) if schedule == "after" else None
            return {"adapter": train(learned, name=self.folder, start=start, needs=needs)}
