"""What systems share that learn from the verdicts on calibration prompts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue, PositiveInt

from mocae.calibration import AlignXRouter
from mocae.config import Recipe, RoutingConfig, override_model
from mocae.config.base import Config
from mocae.errors import ConfigError, ModelMismatchError
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import BankSystem, System, with_values

__all__ = ["LearningOptions", "LearningSystem", "RoutedSystem", "RouterOptions", "RouterSystem", "refuse_large_top_k"]


class LearningOptions(Config):
    """Options of a system that learns from verdicts."""

    routing: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the recipe's `routing`, changed for this system alone."""


class LearningSystem(System):
    """A system that learns from the verdicts on calibration prompts, under the recipe's `routing` or its own."""

    Options = LearningOptions

    def check(self) -> None:
        """Refuse settings of `routing` that are none."""
        super().check()
        override_model(RoutingConfig(), self.options.routing, where="options.routing")

    def routing(self, recipe: Recipe) -> RoutingConfig:
        """Return the recipe's `routing`, changed by the system's own."""
        return override_model(recipe.routing, self.options.routing, where=f"systems.{self.name}.options.routing")

    def settled(self, recipe: Recipe) -> Config:
        """Return the options with all of `routing`."""
        return with_values(self.options, routing=self.routing(recipe).model_dump(mode="json"))

    def record(self, recipe: Recipe) -> dict[str, Any]:
        """Return policy and options without `routing`, which acts through the stages alone."""
        record = super().record(recipe)
        return {**record, "options": {k: v for k, v in record["options"].items() if k != "routing"}}


class RouterOptions(LearningOptions):
    """Options of a system with a router."""

    top_k: PositiveInt | None = None
    """Most experts a prompt uses; null: all. Not given: routing.top_k."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight under which an expert is skipped. Not given: routing.threshold."""


class RoutedSystem(LearningSystem):
    """A system with a fitted router, the stage "router"."""

    Options = RouterOptions
    weights_mean = "chances"

    def experts(self) -> tuple[str, ...]:
        """Return the names of the experts it routes to, in the order of weights."""
        return self.axes

    def check(self) -> None:
        """Refuse a top_k beyond the number of experts."""
        super().check()
        refuse_large_top_k(self.options.top_k, self.experts())
        refuse_large_top_k(self.options.routing.get("top_k"), self.experts(), key="options.routing.top_k")

    def settled(self, recipe: Recipe) -> Config:
        """Return the options with all of `routing`, and its top_k and threshold where the system has none."""
        routing = self.routing(recipe)
        shape = {key: getattr(routing, key) for key in ("top_k", "threshold") if key not in self.given}
        whole = routing.model_dump(mode="json", exclude={"top_k", "threshold"})
        return with_values(self.options, **shape, routing=whole)

    def parse(self, options: dict[str, Any]) -> Config:
        """Return the options, and keep which of them were given."""
        self.given = frozenset(options)
        return super().parse(options)

    def router(self, made: Made) -> AlignXRouter:
        """Return the fitted router.

        Raises:
            ModelMismatchError: it was fitted for other experts.
        """
        router = AlignXRouter.load(made.folders["router"])
        if router.axes != self.experts():
            raise ModelMismatchError(
                f"system {self.name!r}: its router was fitted for experts {list(router.axes)}, the bank holds "
                f"{list(self.experts())}; use the bank it was fitted on, in the same order"
            )
        return router

    def n_active(self, made: Made) -> int:
        """Return the parameters of the experts; those of a linear map are not counted."""
        return sum(int(made.record(f"expert:{name}")["n_parameters"]) for name in self.experts())


class RouterSystem(RoutedSystem, BankSystem):
    """A fitted router over the bank of the run's experts."""

    fitted_as: str
    """What its router is fitted as, see `Fitter.router`."""

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts and the router."""
        routing = self.routing(run.recipe)
        used = run.verdict_ids(routing)
        judged = routing.outcome.max_prompts != 0 if self.fitted_as == "alignx" else bool(used)
        outcomes = run.outcomes_for(routing) if judged else None
        router = run.fitter.router(
            self.folder,
            self.fitted_as,
            run.features,
            outcomes,
            run.rows.all_of("calibration"),
            routing=routing,
            used=used,
        )
        return {**super().stages(run), "router": router}


def refuse_large_top_k(top_k: Any, axes: tuple[str, ...], *, key: str = "options.top_k") -> None:
    """Do nothing if there are as many experts as `top_k` says.

    Raises:
        ConfigError: there are fewer.
    """
    if isinstance(top_k, int) and top_k > len(axes):
        raise ConfigError(f"{key}: got {top_k}; there are {len(axes)} experts, so at most that")
