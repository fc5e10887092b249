"""One adapter for all axes: joint tuning, and joint tuning that learns from verdicts too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt

from mocae.bank import ExpertBank, LoraWeights, load_peft
from mocae.config import Objective, Recipe
from mocae.errors import ConfigError
from mocae.merging import Delta
from mocae.models import Generator
from mocae.policies import FixedPolicy, Mixture
from mocae.stages.base_size import BaseSize
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
    """When the verdicts are learned: mixed with the rows of all axes, after them, or alone."""
    objective: Objective = "sft"
    """sft: accepted answers; dpo: these rather than rejected ones to the same prompt, not with mixed; kto: accepted and
    rejected answers, each by itself."""
    pairs_per_prompt: PositiveInt = 3
    """Most pairs of an accepted and a rejected answer that dpo learns of a prompt."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of what is learned from verdicts; null: experts.optimizer.learning_rate."""


class JointOutcomes(OneAdapter, LearningSystem):
    """The fair rival: joint tuning plus what the verdicts on the calibration prompts teach.

    Without it a win of the router over `joint` may be a win of extra supervision. `after` keeps the accepted answers
    from being outvoted by axis rows that contradict them: it is the stronger rival where axis data conflict.
    """

    Options = JointOutcomesOptions

    @property
    def about(self) -> str:
        """What schedule and objective make of it."""
        kind = "the accepted" if self.options.objective == "sft" else "the accepted and rejected"
        answers = f"{kind} answers to the calibration prompts"
        return {
            "mixed": f"joint tuning plus {answers}",
            "after": f"joint tuning, then tuning on {answers}",
            "alone": f"one adapter tuned on {answers} alone",
        }[self.options.schedule]

    def check(self) -> None:
        """Refuse pairs mixed with rows that are none."""
        super().check()
        if (self.options.objective, self.options.schedule) == ("dpo", "mixed"):
            raise ConfigError("options.objective: 'dpo' learns pairs, which rows of axes are not; use schedule after")

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter; without verdicts it is that of joint tuning, whatever the schedule.

        Raises:
            ConfigError: the verdicts leave nothing to learn.
        """
        rows, routing, options = run.rows.all_of("train"), self.routing(run.recipe), self.options
        if not run.verdict_ids(routing):
            with run.bare():
                return {"adapter": run.trainer.joint(rows)}
        samples, needs = run.verdicts(routing), [run.outcomes_for(routing)]
        with run.bare():
            try:
                adapter = run.trainer.outcomes(
                    samples,
                    f"comparison/{self.folder}",
                    r=run.trainer.total_rank,
                    objective=options.objective,
                    pairs_per_prompt=options.pairs_per_prompt,
                    rows=rows if options.schedule == "mixed" else (),
                    start=run.trainer.joint(rows) if options.schedule == "after" else None,
                    needs=needs,
                    learning_rate=options.learning_rate,
                )
            except ConfigError as error:
                raise ConfigError(f"systems.{self.name}: {error}") from error
        return {"adapter": adapter}
