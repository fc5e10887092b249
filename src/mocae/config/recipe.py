"""What a run is made of: `Recipe`, with one model a stage nested in it.

Types, ranges and what one part says of another are checked here; names of plug-ins and files in
`mocae.pipelines.check`, so that a recipe can be read where the plug-ins it names are not installed.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mocae.config.base import Config, FilePath, Seed, Sequence, problem
from mocae.config.comparing import (
    ComparisonConfig,
    GenerationConfig,
    JudgeConfig,
    ReportConfig,
    SystemConfig,
)
from mocae.config.probes import Probes
from mocae.config.routing import FeaturesConfig, RoutingConfig
from mocae.config.training import AxisConfig, BaseConfig, ExpertsConfig, Objective
from mocae.errors import ConfigError

__all__ = ["Recipe"]


class Recipe(Config):
    """One experiment, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
    """What the run is called."""
    seed: Seed = 0
    """Seed of everything that is drawn."""
    base: BaseConfig
    """The model every expert is trained on."""
    prompt_format: Annotated[str, Field(min_length=1)]
    """How a prompt becomes text: plain, alpaca, chat, or another of `mocae ls formats`."""
    data_root: FilePath | None = None
    """Folder that relative paths of sources and judges start from; null: MOCAE_DATA_ROOT."""
    probes: Probes = ()
    """Kinds of test prompt of one's own, see `mocae ls probes` for those that are there."""
    axes: Annotated[tuple[AxisConfig, ...], Sequence, Field(min_length=1)]
    """The axes; their number is K."""
    experts: ExpertsConfig = ExpertsConfig()
    """Stage 1."""
    features: FeaturesConfig = FeaturesConfig()
    """What the router reads."""
    routing: RoutingConfig = RoutingConfig()
    """Stage 2."""
    comparison: ComparisonConfig = ComparisonConfig()
    """Rivals that are trained too."""
    generation: GenerationConfig = GenerationConfig()
    """Length and sampling of the answers."""
    judges: Annotated[tuple[JudgeConfig, ...], Sequence, Field(min_length=1)]
    """Judges, asked in this order."""
    systems: Annotated[tuple[SystemConfig, ...], Sequence, Field(min_length=1)]
    """Systems that are compared."""
    notes: Annotated[tuple[str, ...], Sequence] = ()
    """What a reader must know; stands beside every number of the report."""
    report: ReportConfig = ReportConfig()
    """Intervals and examples."""

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the axes in the order of the recipe."""
        return tuple(axis.name for axis in self.axes)

    def objective(self, axis: AxisConfig) -> Objective:
        """Return what the expert of an axis is trained on."""
        return axis.objective or self.experts.objective

    def data_path(self, path: Path | None) -> Path | None:
        """Return where a path of the recipe lies: joined to `data_root` unless absolute, None for None.

        Raises:
            ConfigError: the path is relative and there is no `data_root`.
        """
        if path is None or path.is_absolute():
            return path
        if self.data_root is None:
            raise ConfigError(
                f"data_root: null, and MOCAE_DATA_ROOT is not set, but {str(path)!r} is relative. "
                "Give --set data_root=... or set MOCAE_DATA_ROOT to the folder that holds it"
            )
        return self.data_root / path

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        """Check what one part says of another: names are unique, and names of axes are axes."""
        found = [*_twice("axes", self.axis_names), *_twice("systems", [system.name for system in self.systems])]
        order = self.comparison.order
        if order is not None and sorted(order) != sorted(self.axis_names):
            text = f"got {list(order)}; it should name every axis once: {list(self.axis_names)}"
            found.append(("comparison.order", text))
        if self.base.shard and self.base.quantization is not None:
            text = f"got {self.base.quantization!r} with base.shard; packed weights cannot be cut; use one of them"
            found.append(("base.quantization", text))
        method, steps = self.experts.optimizer.method, self.experts.optimizer.checkpoint_steps
        preferred = next((o for axis in self.axes if (o := self.objective(axis)) != "sft"), None)
        if method != "adamw" and preferred is not None:
            text = f"got {method!r} with an axis whose objective is {preferred!r}; use 'adamw'"
            found.append(("experts.optimizer.method", text))
        if method != "adamw" and steps is not None:
            text = f"got {steps} with method {method!r}; 'adamw' alone has any"
            found.append(("experts.optimizer.checkpoint_steps", text))
        top_k = self.routing.top_k
        if top_k is not None and top_k > len(self.axes):
            found.append(("routing.top_k", f"got {top_k}; it should be at most the number of axes, {len(self.axes)}"))
        if found:
            raise problem(*found[0], *found[1:])
        return self


def _twice(key: str, names: SequenceOf[str]) -> list[tuple[str, str]]:
    return [
        (f"{key}.{index}.name", f"{name!r} is there twice; names should be unique")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
