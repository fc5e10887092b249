"""Recipes: what a run is made of, how it is read from YAML, and whether what it names is there."""

from __future__ import annotations

from mocae.config.comparing import (
    SYSTEMS,
    ComparisonConfig,
    GenerationConfig,
    JudgeConfig,
    ReportConfig,
    SystemConfig,
)
from mocae.config.load import ENVIRONMENT, dump_recipe, load_recipe, parse_recipe
from mocae.config.overrides import override_model
from mocae.config.probes import MetricConfig, ProbeConfig, declare_probes, declare_probes_of
from mocae.config.recipe import Recipe
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
    Objective,
    OptimizerConfig,
    SourceConfig,
)

__all__ = [
    "ENVIRONMENT",
    "SYSTEMS",
    "AxisConfig",
    "BaseConfig",
    "BaseGenerationConfig",
    "CalibratorsConfig",
    "ComparisonConfig",
    "ExpertsConfig",
    "FeaturesConfig",
    "GenerationConfig",
    "JudgeConfig",
    "MetricConfig",
    "Objective",
    "OptimizerConfig",
    "OutcomeConfig",
    "OutputCalibratorsConfig",
    "ProbeConfig",
    "Recipe",
    "ReportConfig",
    "RoutingConfig",
    "SourceConfig",
    "SystemConfig",
    "declare_probes",
    "declare_probes_of",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "override_model",
    "parse_recipe",
    "shipped_recipes",
]
