"""Recipes: what a run is made of, how it is read from YAML, and whether what it names is there."""

from __future__ import annotations

from mocae.config.check import limit_note, unreached_limits, validate
from mocae.config.comparing import (
    ROUTED_SYSTEMS,
    ComparisonConfig,
    GenerationConfig,
    JudgeConfig,
    ReportConfig,
    SystemConfig,
)
from mocae.config.load import ENVIRONMENT, dump_recipe, load_recipe, parse_recipe
from mocae.config.overrides import override_model
from mocae.config.recipe import Recipe
from mocae.config.rivals import (
    TRAINED_SYSTEMS,
    ArrowConfig,
    H3FusionConfig,
    HmaConfig,
    JointOutcomesConfig,
    SequentialConfig,
    TrinityXConfig,
    XLoraConfig,
    rival_options,
)
from mocae.config.routing import (
    CalibratorsConfig,
    FeaturesConfig,
    OutcomeConfig,
    OutputCalibratorsConfig,
    RoutingConfig,
)
from mocae.config.shipped import find_recipe, shipped_recipes
from mocae.config.training import (
    AxisConfig,
    BaseConfig,
    BaseGenerationConfig,
    ExpertsConfig,
    OptimizerConfig,
    SourceConfig,
)

__all__ = [
    "ENVIRONMENT",
    "ROUTED_SYSTEMS",
    "TRAINED_SYSTEMS",
    "ArrowConfig",
    "AxisConfig",
    "BaseConfig",
    "BaseGenerationConfig",
    "CalibratorsConfig",
    "ComparisonConfig",
    "ExpertsConfig",
    "FeaturesConfig",
    "GenerationConfig",
    "H3FusionConfig",
    "HmaConfig",
    "JointOutcomesConfig",
    "JudgeConfig",
    "OptimizerConfig",
    "OutcomeConfig",
    "OutputCalibratorsConfig",
    "Recipe",
    "ReportConfig",
    "RoutingConfig",
    "SequentialConfig",
    "SourceConfig",
    "SystemConfig",
    "TrinityXConfig",
    "XLoraConfig",
    "dump_recipe",
    "find_recipe",
    "limit_note",
    "load_recipe",
    "override_model",
    "parse_recipe",
    "rival_options",
    "shipped_recipes",
    "unreached_limits",
    "validate",
]
