"""Task features, and the router with its calibrators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mocae.config.base import Config, Fraction, Sequence, problem, without_removed

__all__ = ["CalibratorsConfig", "FeaturesConfig", "OutcomeConfig", "OutputCalibratorsConfig", "RoutingConfig"]


def _positive_or_fitted(value: Any) -> Any:
    """Return `value` if it is a number above 0 or "fitted": one message, not one for each member of the union."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "fitted" or (number and value > 0):
        return value
    raise PydanticCustomError("positive_or_fitted", "it should be a number above 0, or 'fitted'")


PositiveOrFitted = Annotated[Literal["fitted"] | float, BeforeValidator(_positive_or_fitted)]


class FeaturesConfig(Config):
    """Task features: what an expert changes inside the model, and the latent space the router works in."""

    layer: NonNegativeInt | None = None
    """Decoder layer whose input is read; null: experts.from_layer."""
    pool: Literal["mean", "last", "mean+last"] = "mean+last"
    """How the prompt's tokens become one vector."""
    k: PositiveInt = 256
    """Size of the latent space. AlignX: 256."""
    probes_per_axis: PositiveInt = 256
    """Training prompts an axis is described by."""


class OutcomeConfig(Config):
    """What the router is fitted on."""

    weight: NonNegativeFloat = 1.0
    """Weight of the outcome loss: log loss of every expert's verdict, or with calibration temperature -log of the
    weight on experts whose answers were accepted."""
    gating_weight: NonNegativeFloat = 0.01
    """Weight of the gating loss, cross-entropy against the axis a prompt came from. H3Fusion: 0.01."""
    l2: PositiveOrFitted = "fitted"
    """Ridge penalty on the router's weights; fitted: by the loss on held-out folds of the calibration prompts."""
    max_prompts: NonNegativeInt | None = None
    """Most calibration prompts whose verdicts are used, spread over the axes, by joint_outcomes too; null: all; 0:
    none, so that the router is trained on labels."""
    choice: Literal["spread", "margin"] = "spread"
    """Which of them, with max_prompts. spread: evenly over the kinds of prompt. margin: a third spread, the others in
    rounds where a router fitted on the verdicts so far is least sure which expert to take (active learning)."""
    leave_out: Annotated[tuple[str, ...], Sequence] = ()
    """Probes whose calibration prompts are not used: what does the router say of a kind it has never seen?"""

    @model_validator(mode="after")
    def _something(self) -> OutcomeConfig:
        if self.weight == 0 and self.gating_weight == 0:
            raise problem("weight", "got 0 with gating_weight 0; the router would be fitted on nothing")
        return self


class CalibratorsConfig(Config):
    """AlignX's two calibrators, added to the router's logits."""

    fractal_weight: NonNegativeFloat = 0.6
    """Weight of the geometry term (lambda1). AlignX: 0.6. With calibration chances the size of both terms together is
    fitted, and the two weights are their proportion."""
    natural_weight: NonNegativeFloat = 0.4
    """Weight of the semantics term (lambda2). AlignX: 0.4."""
    epsilon: PositiveFloat = 0.05
    """Smallest radius as a share of the cloud's median distance (clustering granularity). AlignX: 0.05."""
    shrinkage: Fraction = 0.1
    """Share of the identity in the shared covariance of the natural calibrator."""

    @model_validator(mode="before")
    @classmethod
    def _removed(cls, settings: Any) -> Any:
        return without_removed(settings, fit_weights=False, fractal_score="log_mass")


class OutputCalibratorsConfig(Config):
    """Low-rank residuals behind the mixed layers, trained on the accepted answers to the calibration prompts."""

    rank: PositiveInt | None = None
    """Width of each residual; null: there are none."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    epochs: PositiveInt = 3
    """Passes over the accepted answers."""


class RoutingConfig(Config):
    """Stage 2: from a prompt's features to one weight an expert."""

    outcome: OutcomeConfig = OutcomeConfig()
    """Losses of the router."""
    calibrators: CalibratorsConfig = CalibratorsConfig()
    """Terms added to its logits."""
    calibration: Literal["chances", "temperature"] = "chances"
    """How logits become weights and chances. chances: a chance of its own for each expert, so that several can be right
    or none, lowered for prompts unlike the calibration prompts; weights in proportion to them. temperature: the papers'
    softmax, whose largest weight is the chance."""
    novelty: bool = True
    """Whether chances are lowered for prompts unlike the calibration prompts (calibration chances)."""
    temperature: PositiveOrFitted = "fitted"
    """Softmax temperature, used with calibration temperature. AlignX: 1.0; TrinityX: 0.7; fitted: on held-out
    calibration prompts."""
    output: OutputCalibratorsConfig = OutputCalibratorsConfig()
    """Calibrators of the output, after fusion."""
    top_k: PositiveInt | None = 1
    """Most experts a prompt uses. 1: the likeliest alone, which is what verdicts were about; null: all, mixed."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight under which an expert is skipped."""

    @model_validator(mode="before")
    @classmethod
    def _removed(cls, settings: Any) -> Any:
        return without_removed(settings, features="latent+projections")
