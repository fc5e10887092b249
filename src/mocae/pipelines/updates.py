"""What a system has to make again when there is something new to learn: other verdicts, or one more axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

from mocae.stages.choosing import CHOSEN
from mocae.stages.store import Stage

__all__ = ["updates"]


def updates(answers: Stage) -> dict[str, Any]:
    """Return the time a system needs to take in new verdicts, and a new axis, as measured in this run.

    The stages behind a system's answers say what it is made from. New verdicts make every stage anew that is made from
    outcomes; the outcomes themselves (answers of the experts, and judging them) are the same work for every system that
    uses them and are not counted. A new axis makes every stage anew that is made from all axes, and adds one that is
    made from one axis alone, for which the slowest of each kind stands.

    Args:
        answers: the stage of the system's answers.

    Returns:
        `verdicts`, `axis`, and `all` for everything it is made from, each {"seconds", "cpu_seconds", "stages"}; a key
        is left out where the system cannot use it (a merge learns nothing from verdicts) or where the time was not
        recorded.
    """
    behind = _behind(answers)
    learned = [
        stage
        for stage in behind
        if any(below.name.partition("/")[0] in ("outcomes", CHOSEN) for below in _behind(stage))
    ]
    costs = {"verdicts": _cost(learned), "axis": _cost(_for_axis(behind)), "all": _cost(behind)}
    return {what: cost for what, cost in costs.items() if cost}


def _behind(stage: Stage) -> list[Stage]:
    """Return every stage that `stage` is made from, at any distance, the nearest last; no answers to test prompts."""
    ordered: dict[str, Stage] = {}
    for below in stage.needs:
        if not below.name.startswith("answers/"):
            ordered |= {other.name: other for other in (*_behind(below), below) if other.name not in ordered}
    return list(ordered.values())


def _for_axis(behind: Sequence[Stage]) -> list[Stage]:
    """Return the stages a new axis needs: those of all axes, and of those of one axis the slowest in each folder."""
    slowest: dict[str, Stage] = {}
    for stage in behind:
        if stage.axis is not None:
            folder = stage.name.rpartition("/")[0]
            slowest[folder] = max((slowest.get(folder, stage), stage), key=_seconds)
    kept = {stage.name for stage in slowest.values()}
    return [stage for stage in behind if stage.axis is None or stage.name in kept]


def _seconds(stage: Stage) -> float:
    return 0.0 if stage.took is None else stage.took.seconds


def _cost(stages: Sequence[Stage]) -> dict[str, Any]:
    times = [stage.took for stage in stages if stage.took is not None]
    if not times or len(times) < len(stages):
        return {}
    total = {key: round(value, 3) for key, value in asdict(reduce(add, times)).items()}
    return {**total, "stages": [stage.name for stage in stages]}
