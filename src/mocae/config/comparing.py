"""What is compared, how it answers, who judges, and what the report shows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_serializer,
    model_validator,
)

from mocae.config.base import Config, Sequence

__all__ = [
    "ROUTED_SYSTEMS",
    "ComparisonConfig",
    "GenerationConfig",
    "JudgeConfig",
    "ReportConfig",
    "SystemConfig",
]

ROUTED_SYSTEMS = ("alignx", "linear")
"""Policies with a fitted router; `options.routing` of such a system changes how it is fitted."""


class ComparisonConfig(Config):
    """Rivals that are trained on their own; they are trained when `systems` names them."""

    order: Annotated[tuple[str, ...], Sequence] | None = None
    """Order of the axes for sequential tuning; null: as they stand in the recipe."""


class GenerationConfig(Config):
    """How every system answers."""

    max_new_tokens: PositiveInt = 64
    """Longest answer in tokens."""
    batch_size: PositiveInt = 16
    """Prompts answered at once."""
    do_sample: bool = False
    """Sample instead of taking the likeliest token."""
    sampling_temperature: PositiveFloat = 1.0
    """Temperature of sampling; used only with do_sample."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of sampling; used only with do_sample."""


class JudgeConfig(Config):
    """What turns an answer into verdicts."""

    judge: Annotated[str, Field(min_length=1)]
    """Registered name, see `mocae ls judges`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the judge itself."""


class SystemConfig(Config):
    """Something that answers prompts and is compared. A bare string is a system named like its policy."""

    name: str
    """What it is called in the report."""
    policy: Annotated[str, Field(min_length=1)]
    """Registered policy (`mocae ls policies`), `expert:<axis>`, or a trained rival such as `joint`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of the policy, such as {weights: {helpfulness: 1.0}} for static."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value, "policy": value} if isinstance(value, str) else value

    @model_serializer
    def _to_string(self) -> str | dict[str, JsonValue]:
        if self.name == self.policy and not self.options:
            return self.policy
        return {"name": self.name, "policy": self.policy, "options": self.options}


class ReportConfig(Config):
    """What the report shows."""

    resamples: PositiveInt = 1000
    """Bootstrap resamples behind an interval."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Level of the intervals."""
    examples: NonNegativeInt = 3
    """Answers shown for every kind of test prompt."""
