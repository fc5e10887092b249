"""What training the router of a mixture did."""

from __future__ import annotations

from dataclasses import dataclass

from mocae.experts import COLLAPSED, Steps

__all__ = ["MixtureTraining"]


@dataclass(frozen=True, slots=True)
class MixtureTraining:
    """What a training did.

    Attributes:
        n_steps: optimiser steps.
        first_loss: mean language-model loss of the first tenth of the steps, in nats a token.
        last_loss: of the last tenth.
        gradient_norm: largest gradient norm seen.
        language_gradient: largest norm of the gradient the gates get from the language-model loss alone, in the first
            steps.
        entropy: normalised entropy of the mean weights in use in the last tenth of the steps.
        collapsed: entropy below 0.1: one expert for nearly everything.
        n_parameters: trained parameters.
    """

    n_steps: int
    first_loss: float
    last_loss: float
    gradient_norm: float
    language_gradient: float
    entropy: float
    collapsed: bool
    n_parameters: int

    @classmethod
    def of(cls, steps: Steps, entropy: float, n_parameters: int) -> MixtureTraining:
        """Return the record of some steps."""
        return cls(
            steps.n_steps,
            steps.first_loss,
            steps.last_loss,
            steps.gradient_norm,
            steps.language_gradient,
            entropy,
            entropy < COLLAPSED,
            n_parameters,
        )
