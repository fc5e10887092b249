"""What a system has to make again when there is something new to learn: other verdicts, or one more axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import Any

from mocae.config import SystemConfig
from mocae.pipelines.store import Stage, folder_name

__all__ = ["updates"]

_Stages = Mapping[str, Stage]
_Needs = Callable[[SystemConfig, _Stages, Sequence[str], Sequence[str]], dict[str, list[str]]]


def updates(
    system: SystemConfig, stages: Mapping[str, Stage], axes: Sequence[str], order: Sequence[str]
) -> dict[str, Any]:
    """Return the time a system needs to take in new verdicts, and a new axis, as measured in this run.

    Counted are the stages that would have to be made again, as long as they took here: a router that learns from
    outcomes is refitted; joint training starts over. Verdicts themselves (answers of the experts, and judging them) are
    the same work for every system that uses them and are not counted under `verdicts`; a new axis needs new ones, so
    they are counted under `axis`. "One expert" is the slowest of this run.

    Args:
        system: as in the recipe.
        stages: every stage of the run by name.
        axes: names of the axes.
        order: in which they are trained where a system does not say.

    Returns:
        `verdicts` and `axis`, each {"seconds", "cpu_seconds", "stages"}; a key is left out where the system cannot use
        it (a merge learns nothing from verdicts) or where the time was not recorded.
    """
    head = system.policy.partition(":")[0]
    needs = _NEEDS.get(head)
    if needs is None:
        return {}
    found = {}
    for what, wanted in needs(system, stages, axes, order).items():
        told = {name: stages[name].took for name in wanted if name in stages}
        times = [took for took in told.values() if took is not None]
        if len(times) == len(wanted) > 0:
            total = reduce(add, times)
            found[what] = {**{k: round(v, 3) for k, v in asdict(total).items()}, "stages": list(wanted)}
    return found


def _slowest(stages: _Stages, names: Sequence[str]) -> str:
    def seconds(name: str) -> float:
        took = stages[name].took if name in stages else None
        return took.seconds if took is not None else 0.0

    return max(names, key=seconds)


def _expert(stages: _Stages, axes: Sequence[str], folder: str = "experts") -> str:
    return _slowest(stages, [f"{folder}/{axis}" for axis in axes])


def _routed(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    name = folder_name(system.name)
    learned = [f"router/{name}", *(stage for stage in (f"output/{name}",) if stage in stages)]
    return {"verdicts": learned, "axis": [_expert(stages, axes), "features", "outcomes", *learned]}


def _labelled(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    return {"axis": [_expert(stages, axes), "features", f"router/{folder_name(system.name)}"]}


def _from_experts(
    system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]
) -> dict[str, list[str]]:
    return {"axis": [_expert(stages, axes)]}


def _joint(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    return {"axis": ["comparison/joint"]}


def _joint_outcomes(
    system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]
) -> dict[str, list[str]]:
    trained = f"comparison/{folder_name(system.name)}"
    first = ["comparison/joint"] if system.options.get("schedule") == "after" else []  # verdicts come after its rows
    return {"verdicts": [trained], "axis": [_expert(stages, axes), "outcomes", *first, trained]}


def _sequential(
    system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]
) -> dict[str, list[str]]:
    own = system.options.get("order")
    names = [str(name) for name in own] if isinstance(own, list) else order
    return {"axis": ["comparison/sequential/" + "-".join(names)]}  # the axis trained last


def _trinityx(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    default = system.options.get("target_modules", "feed-forward") == "feed-forward"
    folders = {n.rpartition("/")[0] for n in stages if n.startswith("trinityx/experts")}
    own = [f for f in sorted(folders) if (f == "trinityx/experts") is default]
    router = f"trinityx/router/{folder_name(system.name)}"
    return {"axis": [_expert(stages, axes, own[0]), router]} if own else {}


def _xlora(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    return {"axis": [_expert(stages, axes), f"xlora/{folder_name(system.name)}"]}


def _hma(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    return {"axis": [_expert(stages, axes), f"hma/{folder_name(system.name)}"]}


def _h3fusion(system: SystemConfig, stages: _Stages, axes: Sequence[str], order: Sequence[str]) -> dict[str, list[str]]:
    return {"axis": [_expert(stages, axes, "h3fusion/experts"), f"h3fusion/fused/{folder_name(system.name)}"]}


_NEEDS: Mapping[str, _Needs] = {
    "alignx": _routed,
    "linear": _labelled,
    "uniform": _from_experts,
    "sum": _from_experts,
    "merge": _from_experts,
    "joint": _joint,
    "joint_outcomes": _joint_outcomes,
    "sequential": _sequential,
    "trinityx": _trinityx,
    "xlora": _xlora,
    "arrow": _from_experts,
    "hma": _hma,
    "h3fusion": _h3fusion,
}
"""By the head of `policy`; systems that are not here are not told about."""
