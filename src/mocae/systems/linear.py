"""The uncalibrated mixture of experts: a router trained on which axis a prompt came from."""

from __future__ import annotations

from mocae.policies import Policy, RoutedPolicy
from mocae.stages.run import Made
from mocae.systems.routers import RouterSystem

__all__ = ["Linear"]


class Linear(RouterSystem):
    """A router trained on labels, without calibrators; its temperature is fitted on the verdicts, if any."""

    fitted_as = "linear"
    uses_verdicts = False

    def choose(self, made: Made) -> Policy:
        """Return the policy of the router."""
        return RoutedPolicy(self.router(made), top_k=self.options.top_k, threshold=self.options.threshold)
