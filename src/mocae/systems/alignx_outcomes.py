"""AlignX with one more expert, which learns from the verdicts what the router learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mocae.bank import ExpertBank, LoraWeights, load_peft
from mocae.config import Objective, Recipe
from mocae.errors import ConfigError
from mocae.merging import Delta
from mocae.models import Generator
from mocae.policies import Mixture, RoutedPolicy
from mocae.stages.accepted import ACCEPTED, AcceptedExpert
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.stages.training_plan import TrainingPlan, adapter_plan
from mocae.systems.base import experts_alone
from mocae.systems.routers import RoutedSystem, RouterOptions

__all__ = ["AlignXOutcomes"]


class AlignXOutcomesOptions(RouterOptions):
    """Options of an `alignx_outcomes` system."""

    objective: Objective = "sft"
    """How the further expert learns from verdicts: sft: accepted answers; dpo: these rather than rejected ones to the
    same prompt; kto: accepted and rejected answers, each by itself."""
    n_folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Parts of the calibration prompts for cross-fitting: the further expert is trained once more for each, on the
    other parts, and judged by its answers to this one."""


class AlignXOutcomes(RoutedSystem):
    """AlignX over the experts of the axes and one more, tuned on the accepted answers to the calibration prompts.

    Where verdicts are few the router follows the experts of the axes, where they are many the further expert: what
    `joint_outcomes` learns from the same verdicts is one of its choices.
    """

    Options = AlignXOutcomesOptions
    rival = True

    def experts(self) -> tuple[str, ...]:
        """Return the axes, and "accepted"."""
        return (*self.axes, ACCEPTED)

    def check(self) -> None:
        """Refuse an axis with the name of the further expert, and no verdicts."""
        super().check()
        if ACCEPTED in self.axes:
            raise ConfigError(f"policy: {self.kind!r} names its further expert {ACCEPTED!r}, and an axis is called so")
        if self.options.routing.get("outcome", {}).get("max_prompts", None) == 0:
            raise ConfigError(f"options.routing.outcome.max_prompts: {self.kind!r} learns from verdicts, got 0")

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts and the router.

        Raises:
            ConfigError: the verdicts leave nothing to learn.
        """
        routing, options = self.routing(run.recipe), self.options
        try:
            return AcceptedExpert(
                run, self.folder, routing, objective=options.objective, n_folds=options.n_folds
            ).stages()
        except ConfigError as error:
            raise ConfigError(f"systems.{self.name}: {error}") from error

    def alone(self, run: Run) -> Mapping[str, Stage]:
        """Return the answers of the experts of the axes."""
        return experts_alone(run)

    def load(self, made: Made) -> Generator:
        """Return the mixture of all experts under the router."""
        folders = {name: made.folders[f"expert:{name}"] for name in self.experts()}
        policy = RoutedPolicy(self.router(made), top_k=self.options.top_k, threshold=self.options.threshold)
        return Mixture(made.base, ExpertBank.attach(made.base.model, folders), policy)

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return the cost of one more expert and those of the folds, if every answer to calibration is accepted."""
        most = self.routing(recipe).outcome.max_prompts
        if most is None:
            limits = [source.limit for axis in recipe.axes for source in axis.calibration]
            most = None if None in limits else sum(limit or 0 for limit in limits)
        n_answers = n_rows if most is None else most * len(self.axes) * self.options.n_folds
        return adapter_plan(recipe, base, self.kind, n_answers, recipe.experts.r)

    def export_names(self) -> tuple[str, ...] | None:
        """Return the names of all experts."""
        return self.experts()

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return all experts."""
        return {name: load_peft(made.folders[f"expert:{name}"], name=name) for name in self.experts()}
