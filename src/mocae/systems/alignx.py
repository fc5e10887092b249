"""AlignX (arXiv 2602.07381): the router fitted on outcomes, with fractal and natural calibrators."""

from __future__ import annotations

from collections.abc import Mapping

from mocae.calibration import OutputCalibrators
from mocae.policies import Policy, RoutedPolicy
from mocae.stages.output import output_calibrators
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.routers import RouterSystem

__all__ = ["AlignX"]


class AlignX(RouterSystem):
    """AlignX, with output calibrators behind the mixed layers where `routing.output.rank` is set."""

    fitted_as = "alignx"
    rival = True

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return experts and router, and "output" where there are output calibrators."""
        stages = super().stages(run)
        routing = self.routing(run.recipe)
        if routing.output.rank is not None:
            stages["output"] = output_calibrators(run, self.folder, stages["router"], routing)
        return stages

    def alone(self, run: Run) -> Mapping[str, Stage]:
        """Return the answers of every expert, unless output calibrators change them."""
        return {} if self.routing(run.recipe).output.rank is not None else super().alone(run)

    def choose(self, made: Made) -> Policy:
        """Return the policy of router and output calibrators."""
        output = None
        if "output" in made.folders:
            output = OutputCalibrators.load(made.folders["output"]).to(made.base.model.device)
        return RoutedPolicy(
            self.router(made),
            top_k=self.options.top_k,
            threshold=self.options.threshold,
            output=output,
        )

    def n_active(self, made: Made) -> int:
        """Return the parameters of the experts and of the output calibrators."""
        output = int(made.record("output")["n_parameters"]) if "output" in made.folders else 0
        return super().n_active(made) + output

    def warnings(self, made: Made) -> list[str]:
        """Say where there were no verdicts to learn from."""
        if self.options.routing.get("outcome", {}).get("max_prompts", None) != 0:
            return []
        return [
            f"{self.name}: no verdicts to learn from (routing.outcome.max_prompts: 0), so its router is trained on the "
            "axes of the training prompts"
        ]
