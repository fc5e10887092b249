"""The model card: `README.md` of an artifact folder, in the form that model hubs read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from mocae.report.findings import find
from mocae.report.judges import judge_rows
from mocae.report.schema import axis_names, check_report, lookup, sorted_systems
from mocae.report.tables import DASH, systems_table
from mocae.report.templating import templates

__all__ = ["card_text"]


def card_text(report: Mapping[str, Any]) -> str:
    """Return the model card: front matter, result, how to load, limits.

    Raises:
        ArtifactError: `report` is of another version or lacks what every report needs.
    """
    check_report(report)
    axes = axis_names(report)
    front = {
        "base_model": report["recipe"]["base"]["model"],
        "library_name": "mocae",
        "pipeline_tag": "text-generation",
        "tags": ["mocae", "lora", "mixture-of-experts", "alignment", *(_tag(axis) for axis in axes)],
    }
    return (
        templates()
        .get_template("card.md.j2")
        .render(
            front_matter=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
            recipe=report["recipe"],
            axes=report["recipe"]["axes"],
            notes=[str(note) for note in report.get("notes") or ()],
            findings=find(report),
            table=systems_table(report),
            glossary=[(s, lookup(report["systems"][s], "about")) for s in sorted_systems(report)],
            judges=judge_rows(report),
            environment=report.get("environment") or {},
            dash=DASH,
            routed=bool(report.get("routing")),
        )
    )


def _tag(axis: str) -> str:
    """Return the axis as a tag that hubs accept: lower case, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", axis.lower()).strip("-") or "axis"
