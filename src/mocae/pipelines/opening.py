"""What a chat opens with: what the model of a finished run knows, and prompts to try."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mocae.axes import stored_probe
from mocae.pipelines.artifact import read_report
from mocae.pipelines.manifest import read_manifest
from mocae.report import format_estimate
from mocae.report.schema import lookup, read_estimate

__all__ = ["Opening", "opening"]

_MOST = 3


@dataclass(frozen=True, slots=True)
class Opening:
    """One line of what a model knows, and prompts of its test split to try, none of them a harmful request."""

    knows: str
    prompts: tuple[str, ...]


def opening(root: Path, system: str) -> Opening:
    """Return what a chat with a system of a finished run opens with.

    Raises:
        ArtifactError: the folder is no finished run, or its report is damaged.
    """
    manifest, report = read_manifest(root), read_report(root) or {}
    axes = [_axis(axis) for axis in lookup(report, "recipe", "axes") or [{"name": a} for a in manifest["axes"]]]
    knows = f"{system} on base model {manifest['base']['model']} knows {', '.join(axes)}, and no other world"
    score = read_estimate(lookup(report, "systems", system, "mean_axis_score"))
    if score.value is not None:
        knows += f"; acceptable answers to {format_estimate(score)} of {score.n} test prompts of these kinds"
    notes = [str(note) for note in report.get("notes") or ()]
    return Opening(f"{knows} ({notes[0]})." if notes else f"{knows}.", _prompts(report))


def _axis(axis: dict[str, Any]) -> str:
    """Return an axis with the names of the sources it was trained, or else tested, on."""
    splits = (axis.get(split) or () for split in ("train", "calibration", "test"))
    sources = dict.fromkeys(str(source["source"]) for source in next(filter(None, splits), ()))
    return f"{axis['name']} ({', '.join(sources)})" if sources else str(axis["name"])


def _prompts(report: dict[str, Any]) -> tuple[str, ...]:
    """Return the first prompts of the examples, axis by axis; what should not be answered is left out."""
    by_axis: dict[str, list[str]] = {}
    for example in report.get("examples") or ():
        if "unsafe" not in stored_probe(str(example.get("probe"))).wants:
            by_axis.setdefault(str(example.get("axis")), []).append(" ".join(str(example["prompt"]).split()))
    rounds = zip_longest(*by_axis.values())
    return tuple([prompt for one in rounds for prompt in one if prompt is not None][:_MOST])
