"""How sure a router is of a kind of prompt that was left out of its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mocae.config import Recipe
from mocae.metrics import auroc, expected_calibration_error
from mocae.systems import build_systems
from mocae.types import Sample

__all__ = ["left_out_of", "measure_left_out"]


def left_out_of(recipe: Recipe) -> dict[str, Sequence[str]]:
    """Return system -> probes left out of its calibration, for the systems that leave any out."""
    routings = {system.name: system.routing(recipe) for system in build_systems(recipe)}
    left_out = {name: routing.outcome.leave_out for name, routing in routings.items() if routing is not None}
    return {name: probes for name, probes in left_out.items() if probes}


def measure_left_out(samples: Sequence[Sample], probes: Sequence[str]) -> Mapping[str, float | None]:
    """Return what a router with one expert a prompt says of left-out test prompts, and of known ones beside them.

    Args:
        samples: judged answers of the system.
        probes: left out of its calibration.

    Returns:
        Of the left-out prompts: `right` (share of acceptable answers), `confidence` (mean), `ece`; of the others
        `known_ece`; `auroc` of novelty for left-out against other prompts. None where a side has no such prompts.
    """
    scored = [s for s in samples if s.acceptable is not None and s.answer.confidence is not None]
    inside = [s for s in scored if s.answer.example.probe in probes]
    outside = [s for s in scored if s.answer.example.probe not in probes]
    novel = [s for s in scored if s.answer.novelty is not None]
    flags = [s.answer.example.probe in probes for s in novel]
    return {
        "right": sum(bool(s.acceptable) for s in inside) / len(inside) if inside else None,
        "confidence": sum(s.answer.confidence or 0.0 for s in inside) / len(inside) if inside else None,
        "ece": _ece(inside),
        "known_ece": _ece(outside),
        "auroc": auroc([s.answer.novelty or 0.0 for s in novel], flags) if 0 < sum(flags) < len(flags) else None,
    }


def _ece(samples: Sequence[Sample]) -> float | None:
    if not samples:
        return None
    return expected_calibration_error(
        [s.answer.confidence or 0.0 for s in samples], [bool(s.acceptable) for s in samples]
    )
