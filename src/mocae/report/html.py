"""The page: one file that holds its style, its figures and its few lines of script, and asks for nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mocae.errors import ConfigError
from mocae.report.colours import THEME, axis_colour, css_colours
from mocae.report.conclusions import whom
from mocae.report.findings import find
from mocae.report.judges import constants_table, judge_rows
from mocae.report.samples import samples_payload
from mocae.report.schema import (
    axis_names,
    check_report,
    is_upper_bound,
    lookup,
    read_estimate,
    sorted_systems,
    upper_bounds,
)
from mocae.report.tables import (
    DASH,
    MINUS,
    forgetting_table,
    format_bytes,
    format_count,
    kinds_table,
    routing_table,
    seconds_cell,
    systems_table,
    updates_table,
)
from mocae.report.templating import templates
from mocae.types import Sample

__all__ = ["html_page"]


_MOST_ANSWERS = 4
"""Answers to one prompt that stand side by side; the list of all answers has the others."""


@dataclass(frozen=True, slots=True)
class _Share:
    """One expert's part of a mixture: `width` in percent of the bar, `colour` a CSS value."""

    axis: str
    weight: str
    width: str
    colour: str


def html_page(report: Mapping[str, Any], samples: Sequence[Sample] = ()) -> str:
    """Return the whole page for a report; the same report and samples give the same bytes.

    Args:
        report: a `report.json`.
        samples: every judged answer, which the page can then search.

    Raises:
        ArtifactError: `report` is of another version or lacks what every report needs.
    """
    check_report(report)
    axes = axis_names(report)
    table, routing, findings = systems_table(report), routing_table(report), find(report)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            recipe=report["recipe"],
            alone=len(report["systems"]) == 1,  # then there is nothing about experts and routers to tell
            axes=[
                (a, lookup(dict(spec), "injection"), _axis_css(a, axes))
                for a, spec in zip(axes, report["recipe"]["axes"], strict=True)
            ],
            notes=[str(note) for note in report.get("notes") or ()],
            unseen=bool(report.get("unseen", True)),
            findings=findings,
            table=table,
            abouts={s: lookup(report["systems"][s], "about") for s in report["systems"]},
            metrics={c.label: c for c in (*table.columns, *(routing.columns if routing else ()))},
            plates=_plates(report),
            forgetting=forgetting_table(report),
            overlap=lookup(report, "collapse", "overlap") or {},
            updates=updates_table(report.get("updates") or {}, sorted_systems(report), seconds_cell),
            routing=routing,
            further=[(name, _axis_css(name, axes)) for name in _further_experts(report, axes)],
            kinds=kinds_table(report),
            costs=_costs(report),
            judges=judge_rows(report),
            constants=constants_table(report),
            examples=[
                _example(example, axes, report["systems"], findings.front) for example in report.get("examples") or ()
            ],
            whom=whom(report),
            samples=samples_payload(samples, bounds=upper_bounds(report["systems"], list(report["systems"]))),
            counts=_counts(report.get("counts") or {}),
            recipe_yaml=_yaml(report["recipe"]),
            environment={str(k): str(v) for k, v in (report.get("environment") or {}).items()},
            light=css_colours(dark=False),
            dark=css_colours(dark=True),
            dash=DASH,
        )
    )


def _further_experts(report: Mapping[str, Any], axes: list[str]) -> list[str]:
    """Return the experts of the routing figure that are of no axis."""
    routers = (report.get("routing") or {}).values()
    kinds = [weights for router in routers for weights in (router.get("weights_by_kind") or {}).values()]
    return [name for name in dict.fromkeys(name for weights in kinds for name in weights) if name not in axes]


def _axis_css(axis: str, axes: list[str]) -> str:
    """Return the CSS colour of an axis, the same one that the figures use."""
    return THEME[axis_colour(axis, axes)]


def _plates(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures by name; matplotlib is slow to import and needed nowhere else.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from mocae.report import figures
    except ModuleNotFoundError as error:
        raise ConfigError(f"report.html: {error.name} is not installed; run: pip install 'mocae[eval]'") from error
    plates = {
        "systems": figures.draw_systems(report),
        "kinds": figures.draw_kinds(report),
        "forgetting": figures.draw_forgetting(report),
        "overlap": figures.draw_overlap(report),
        "routers": figures.draw_routers(report),
        "refusal": figures.draw_refusal(report),
        "reliability": figures.draw_reliability(report),
        "routing": figures.draw_routing(report),
    }
    lead = "forgetting" if plates["forgetting"].panels else "systems"
    if len(report["systems"]) > 1:  # one picture goes to the top of the page
        first, *others = plates[lead].panels or (None,)
        plates["first"] = plates[lead] if first is None else figures.Plate((first,))
        plates[lead] = figures.Plate(tuple(others))
    return plates


def _costs(report: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the measured cost of each system as printed cells, no rows when nothing was measured."""
    rows = []
    for system in sorted_systems(report):
        cost = lookup(report["systems"][system], "cost") or {}
        if cost:
            speed, seconds = (read_estimate(cost.get(key)).value for key in ("tokens_per_second", "seconds"))
            cells = [
                DASH if seconds is None else f"{seconds:.1f} s",
                format_count(speed),
                format_bytes(cost.get("peak_memory_bytes")),
                format_count(cost.get("parameters")),
                format_count(cost.get("trained_parameters")),
            ]
            rows.append((system, cells))
    return rows


def _example(
    example: Mapping[str, Any], axes: list[str], systems: Mapping[str, Any], front: Sequence[str]
) -> dict[str, Any]:
    """Return one prompt with the answers of the systems in `front`, filled up with others in their order."""
    answers: Mapping[str, Any] = example.get("answers") or {}
    shown = [name for name in dict.fromkeys([*front, *answers]) if name in answers][:_MOST_ANSWERS]
    axis = str(example.get("axis") or "")
    return {
        "prompt": str(example["prompt"]),
        "axis": axis,
        "probe": str(example.get("probe") or ""),
        "colour": _axis_css(axis, axes),
        "n": len(answers),
        "answers": [
            {
                "system": system,
                "upper_bound": is_upper_bound(systems, system),
                "text": str(answers[system].get("text") or ""),
                "acceptable": answers[system].get("acceptable"),
                "shares": _shares(answers[system].get("weights") or {}, axes),
            }
            for system in shown
        ],
    }


def _shares(weights: Mapping[str, Any], axes: list[str]) -> list[_Share]:
    """Return the pieces of one weights bar; a negative weight has no length and shows as its number."""
    values = {axis: read_estimate(w).value or 0.0 for axis, w in weights.items()}
    total = max(1.0, sum(max(v, 0.0) for v in values.values()))
    return [
        _Share(axis, f"{v:.2f}".replace("-", MINUS), f"{100 * max(v, 0.0) / total:.1f}", _axis_css(axis, axes))
        for axis, v in values.items()
    ]


def _counts(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (split, "helpfulness 500, harmlessness 480") for every split that was counted."""
    rows = []
    for split, by_axis in counts.items():
        if isinstance(by_axis, Mapping):
            rows.append((split, ", ".join(f"{axis} {format_count(n)}" for axis, n in by_axis.items())))
    return rows


def _yaml(recipe: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(recipe, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
