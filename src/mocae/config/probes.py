"""Kinds of test prompt that a recipe or suite declares: an axis of one's own needs no Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from mocae.axes import Probe, register_probe
from mocae.config.base import Config, Name, Sequence, problem
from mocae.errors import ArtifactError, PluginError, unknown_name
from mocae.metrics import METRICS, Metric

__all__ = ["MetricConfig", "ProbeConfig", "Probes", "declare_probes", "declare_probes_of"]


class MetricConfig(Config):
    """One figure of the report. A bare string is one of `mocae ls metrics`, a mapping one of the recipe's own."""

    name: Name
    """What it is called in report.json."""
    judgement: Annotated[str, Field(min_length=1)] | None = None
    """The judgement that is counted; null: `name` is a metric that is there already."""
    label: str = ""
    """Heading of its column; "": the judgement."""
    text: str = ""
    """One sentence for the glossary."""
    better: Literal["up", "down", "none"] | None = None
    """Which way is better; null: as the probe wants the judgement."""
    graded: bool = False
    """Whether the mean of the scores counts, not the share of those of one half and more."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ProbeConfig(Config):
    """One kind of test prompt: what is judged of the answers. A bare string wants the judgement of its own name."""

    name: Name
    """What sources call it: the option `probe` of a table."""
    wants: Annotated[dict[str, bool], Field(min_length=1)]
    """Judgement -> the side that is wanted: {polite: true}, or {rude: false}. Acceptable answers have all of them."""
    metrics: Annotated[tuple[MetricConfig, ...], Sequence] = ()
    """What is measured; none: a rate for each wanted judgement."""
    label: str = ""
    """Heading of the pass rate; "": the name."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"name": value, "wants": {value: True}} if isinstance(value, str) else value

    def figures(self) -> tuple[MetricConfig, ...]:
        """Return `metrics`, or a rate for each wanted judgement where there are none."""
        rates = {f"{judgement}_rate": judgement for judgement in self.wants}
        return self.metrics or tuple(
            MetricConfig(name=name, judgement=None if METRICS.has_registered(name) else judgement)
            for name, judgement in rates.items()
        )

    def metric(self, figure: MetricConfig) -> Metric:
        """Return a figure of the recipe's own as a metric."""
        judgement = figure.judgement or ""
        words, what = judgement.replace("_", " "), "Mean score" if figure.graded else "Share"
        better = {"up": True, "down": False, "none": None, None: self.wants.get(judgement)}
        return Metric(
            name=figure.name,
            label=figure.label or words,
            text=figure.text or f"{what} of the answers to {self.name!r} prompts: {words}.",
            higher_is_better=better[figure.better],
            judgement=judgement,
            graded=figure.graded,
            reference="declared in the recipe",
        )


def declare_probes(probes: Iterable[ProbeConfig]) -> None:
    """Make probes and their figures known by name, in place of what other recipes of this process declared.

    Raises:
        PydanticCustomError: a metric is not there, or a name is taken by something that no recipe declared.
    """
    for index, config in enumerate(probes):
        figures = config.figures()
        try:
            for figure in figures:
                if figure.judgement is not None:
                    METRICS.declare(figure.name, config.metric(figure))
                elif figure.name not in METRICS:
                    unknown = unknown_name("metric", figure.name, METRICS)
                    raise PluginError(f"{unknown} One of your own is {{name: {figure.name}, judgement: ...}}")
            names = tuple(figure.name for figure in figures)
            register_probe(Probe(config.name, config.wants, metrics=names, label=config.label), declared=True)
        except PluginError as error:
            raise problem(str(index), str(error)) from error


def _declared(probes: tuple[ProbeConfig, ...]) -> tuple[ProbeConfig, ...]:
    declare_probes(probes)
    return probes


Probes = Annotated[tuple[ProbeConfig, ...], Sequence, AfterValidator(_declared)]
"""Probes of a recipe or suite; reading them makes them known."""


def declare_probes_of(report: Mapping[str, Any]) -> None:
    """Make the probes known that the recipe or suite of a report declares, so that its figures have their names.

    Raises:
        ArtifactError: they are none.
    """
    recipe = report.get("recipe") or {}
    declared = recipe.get("probes") or (recipe.get("suite") or {}).get("probes") or []
    try:
        TypeAdapter(Probes).validate_python(declared)
    except ValidationError as error:
        raise ArtifactError(f"report.json: recipe.probes: {error.errors()[0]['msg']}; run it again") from error
