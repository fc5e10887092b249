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
from mocae.registry import Registry

__all__ = [
    "SYSTEMS",
    "ComparisonConfig",
    "GenerationConfig",
    "JudgeConfig",
    "ReportConfig",
    "SystemConfig",
]


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
    reuse: bool = True
    """Whether a system that gives a prompt to one expert alone has the answer this expert gave alone. It is the same
    answer but for rounding; what answering costs is then measured on two batches. Not with do_sample."""


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
    """Registered kind of system (`mocae ls systems`), with an argument where it takes one: `expert:<axis>`."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the kind, such as {weights: {helpfulness: 1.0}} for static."""

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


SYSTEMS: Registry[type[Any]] = Registry(
    "system",
    entry_point_group="mocae.systems",
    builtin={
        "base": ("mocae.systems.fixed:Base", "the base model as it is, no expert"),
        "expert": ("mocae.systems.fixed:Expert", "one expert alone (expert:<axis>)"),
        "uniform": ("mocae.systems.fixed:Uniform", "every expert with weight 1 / K, whatever the prompt"),
        "static": ("mocae.systems.fixed:Static", "the weights given in options.weights, whatever the prompt"),
        "sum": ("mocae.systems.fixed:Sum", "every expert with weight 1 (task arithmetic)"),
        "prompt_only": ("mocae.systems.prompt_only:PromptOnly", "the base model with all injected prompts in front"),
        "linear": ("mocae.systems.linear:Linear", "a router trained on which axis a prompt came from"),
        "knn": ("mocae.systems.knn:Knn", "the expert that was right most often on the nearest calibration prompts"),
        "alignx": (
            "mocae.systems.alignx:AlignX",
            "AlignX: a router that learned from verdicts which expert to ask",
        ),
        "alignx_outcomes": (
            "mocae.systems.alignx_outcomes:AlignXOutcomes",
            "AlignX with one more expert, tuned on the accepted answers to the calibration prompts",
        ),
        "oracle": ("mocae.systems.oracle:Oracle", "the best expert by the verdict itself: an upper bound"),
        "joint": ("mocae.systems.joint:Joint", "one adapter tuned on the rows of all axes at once"),
        "joint_outcomes": (
            "mocae.systems.joint:JointOutcomes",
            "joint tuning plus the accepted answers to the calibration prompts",
        ),
        "sequential": ("mocae.systems.sequential:Sequential", "one adapter tuned on one axis after another"),
        "distilled": ("mocae.systems.distilled:Distilled", "one adapter tuned on a mixture's own answers"),
        "merge": ("mocae.systems.merge:Merge", "the experts merged into the weights: merge:<method>"),
        "trinityx": ("mocae.systems.trinityx:TrinityX", "TrinityX: experts in feed-forward blocks, a router in each"),
    },
)
"""Kinds of system by the name a recipe gives as `policy`: subclasses of `mocae.systems.System`."""
