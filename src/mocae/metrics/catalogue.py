"""The one table of metrics: what each number is called, says and is printed in, and which way is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml

from mocae.errors import PluginError
from mocae.registry import Registry
from mocae.types import Sample

__all__ = ["ARROWS", "METRICS", "Metric", "Unit", "in_table_order", "metric"]

Unit = Literal["percent", "points", "difference", "number", "nats", "radians"]

ARROWS = {True: "↑", False: "↓", None: ""}
"""Which way is better, as it is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number: how it is read and printed, and what it is computed of.

    Attributes:
        name: in `report.json` and in the results of `mocae score`.
        label: heading of a column.
        text: one plain sentence.
        higher_is_better: None where neither direction is better.
        unit: "percent" (a fraction), "points" (a distance of fractions, without sign), "difference" (points with their
            sign), "number", "nats" or "radians".
        reference: the paper or benchmark it comes from.
        short: heading in a terminal, lines apart; "" breaks the label between words.
        judgement: the judgement whose mean over prompts it is, "acceptable" for the rule of the probe; "" for none.
        graded: whether the score of that judgement counts as it is, else as 1 from one half on and as 0 below.
        negated: whether the share on which the judgement does not hold counts.
        part_of: the metric this one is a factor of; a terminal shows that one alone.
        function: name of the function in `mocae.metrics` that computes it, where it is another one.
        columns: numbers in a row of a file that `compute` needs, so that `mocae score` can compute it.
        compute: takes one list a column, returns the number.
    """

    name: str
    label: str
    text: str
    higher_is_better: bool | None = None
    unit: Unit = "percent"
    reference: str = "mocae"
    short: str = ""
    judgement: str = ""
    graded: bool = False
    negated: bool = False
    part_of: str = ""
    function: str = ""
    columns: tuple[str, ...] = ()
    compute: Callable[..., float] | None = None

    @property
    def arrow(self) -> str:
        """Return "↑" where higher is better, "↓" where lower is, else ""."""
        return ARROWS[self.higher_is_better]

    @property
    def heading(self) -> str:
        """Return the heading of a narrow column, its lines apart."""
        return self.short or self.label.replace(" ", "\n")

    def value(self, sample: Sample) -> float | None:
        """Return what the metric is the mean of for one judged answer, None where that is unscored."""
        if self.judgement == "acceptable":
            return None if sample.acceptable is None else float(sample.acceptable)
        verdict = sample.verdicts.get(self.judgement)
        if verdict is None or verdict.score is None:
            return None
        score = verdict.score if self.graded else float(verdict.score >= 0.5)
        return 1 - score if self.negated else score


METRICS: Registry[Metric] = Registry("metric", entry_point_group="mocae.metrics")
"""Every metric by name, ours first; a package adds its own through the entry point group `mocae.metrics`."""


def _read_table() -> dict[str, Metric]:
    text = (resources.files("mocae.metrics") / "catalogue.yaml").read_text(encoding="utf-8")
    directions = {"up": True, "down": False, "none": None}
    rows: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Metric(name=name, higher_is_better=directions[row.pop("better", "none")], **row)
        for name, row in rows.items()
    }


_OURS = _read_table()
_BY_FUNCTION = {m.function: m for m in _OURS.values() if m.function}
for _name, _metric in _OURS.items():
    METRICS.register(_name)(_metric)


def metric(name: str) -> Metric:
    """Return the metric, by its own name or its function's; an unknown one claims no direction and is a fraction."""
    if name in _BY_FUNCTION:
        return _BY_FUNCTION[name]
    try:
        return METRICS.get(name)
    except PluginError:
        return Metric(name=name, label=name.replace("_", " "), text="")


def in_table_order(names: Iterable[str]) -> list[str]:
    """Return each name once, in the order of the table; those of plug-ins come last.

    >>> in_table_order(["pass_rate", "own_rate", "unsafe_rate", "pass_rate"])
    ['unsafe_rate', 'pass_rate', 'own_rate']
    """
    order = {name: place for place, name in enumerate(_OURS)}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))
