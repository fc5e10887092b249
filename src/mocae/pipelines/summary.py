"""From judged answers to `report.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

import mocae
from mocae.config import Recipe
from mocae.distributed import size
from mocae.evaluation import Bootstrap, difference, measure_routing, measure_system, measure_weights, probes_by_axis
from mocae.judges import Judge
from mocae.pipelines.forgetting import forgetting
from mocae.stages.judging import Audited
from mocae.stages.rows import Rows
from mocae.stages.run import Answered
from mocae.types import Sample

__all__ = ["SCHEMA", "Entrant", "environment", "summarise"]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Entrant:
    """What came of one system.

    Attributes:
        answered: judged answers and cost.
        about: one line for people.
        plain: whether it is called like its kind.
        upper_bound: whether it has seen the verdicts it is scored on.
        one_adapter: whether it is one adapter trained on all axes, the plain rival of every mixture.
        weights_mean: see `mocae.systems.System`.
        on_the_way: axis -> answers after it was trained, for a system trained axis after axis.
        updates: what taking in something new costs it, see `mocae.pipelines.updates.updates`.
        warnings: what a reader of the report must know.
    """

    answered: Answered
    about: str = ""
    plain: bool = False
    upper_bound: bool = False
    one_adapter: bool = False
    weights_mean: Literal["chances", "shares"] | None = None
    on_the_way: Mapping[str, Answered] = field(default_factory=dict)
    updates: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def summarise(
    recipe: Recipe,
    *,
    entrants: Mapping[str, Entrant],
    rows: Rows,
    judges: Sequence[Judge],
    audited: Audited,
    overlap: Mapping[str, Any] | None,
    n_base_parameters: int,
    notes: Sequence[str],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `report.json`, version 1.

    Args:
        recipe: as run.
        entrants: system -> what came of it; "base" and one "expert:<axis>" for each axis among them.
        rows: for the counts.
        judges: for their quality.
        audited: what they say to constant answers.
        overlap: of the experts, see `mocae.stages.overlap.overlap`.
        n_base_parameters: of the base model.
        notes: labels that stand beside every number.
        environment: versions and hardware.
    """
    boot = Bootstrap(n_resamples=recipe.report.resamples, confidence=recipe.report.confidence, seed=recipe.seed)
    axes = recipe.axis_names
    answered = {name: entrant.answered for name, entrant in entrants.items()}
    base = answered["base"].samples
    systems = {}
    for name, system in answered.items():
        entry = measure_system(system.samples, base, axes, boot=boot)
        entry["cost"] = _cost(system, n_base_parameters)
        entry |= {key: getattr(entrants[name], key) for key in ("about", "plain", "upper_bound", "one_adapter")}
        systems[name] = entry
    experts = {axis: answered[f"expert:{axis}"].samples for axis in axes}
    routing = {}
    for name, entrant in entrants.items():
        samples = answered[name].samples
        if entrant.weights_mean == "chances":
            measured = measure_routing(samples, experts, calibrated=True, boot=boot)
        elif entrant.weights_mean == "shares":
            measured = measure_weights(samples, axes, boot=boot)
        else:
            continue
        if measured is not None:
            routing[name] = measured
    orders = {
        name: lost
        for name, entrant in entrants.items()
        if entrant.on_the_way and (lost := forgetting(axes, base, entrant.on_the_way, boot)) is not None
    }
    every = [sample for system in answered.values() for sample in system.samples]
    return {
        "schema": SCHEMA,
        "recipe": recipe.model_dump(mode="json"),
        "systems": systems,
        "probes": probes_by_axis(base, axes),
        "routing": routing,
        "forgetting": next(iter(orders.values()), {}),
        "collapse": {"orders": orders, "overlap": overlap},
        "updates": {name: entrant.updates for name, entrant in entrants.items() if entrant.updates},
        "comparisons": _comparisons(answered, axes, boot),
        "judges": [
            _judge(judge, every) | {"audit": audit} for judge, audit in zip(judges, audited.audits, strict=True)
        ],
        "constants": list(audited.constants),
        "examples": _examples(answered, recipe.report.examples),
        "counts": {
            **rows.counts(),
            "skipped": rows.n_skipped,
            "unscored": sum(sample.acceptable is None for sample in every),
        },
        "notes": [
            *notes,
            *audited.notes,
            *(warning for entrant in entrants.values() for warning in entrant.warnings),
        ],
        "environment": dict(environment),
    }


def environment(device: str, dtype: str) -> dict[str, Any]:
    """Return versions and hardware, without names or paths of the machine."""
    return {
        "mocae": mocae.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else f"{platform.machine()} CPU",
        "processes": size(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
    }


def _cost(system: Answered, n_base: int) -> dict[str, Any]:
    cost = system.cost
    return {
        "seconds": round(cost.seconds, 3),
        "tokens_per_second": round(cost.n_tokens / cost.seconds, 1) if cost.seconds > 0 else None,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "parameters": n_base + system.n_active,
        "trained_parameters": system.n_active,
    }


def _comparisons(answered: Mapping[str, Answered], axes: Sequence[str], boot: Bootstrap) -> dict[str, Any]:
    """Return paired differences in the mean over the axes against joint training, else against the base model."""
    against = "joint" if "joint" in answered else "base"
    rival = answered[against].samples
    return {
        "against": against,
        "differences": {
            name: asdict(difference(system.samples, rival, axes, boot=boot))
            for name, system in answered.items()
            if name != against
        },
    }


def _judge(judge: Judge, samples: Sequence[Sample]) -> dict[str, Any]:
    mine = [v for s in samples for v in s.verdicts.values() if v.judge == judge.name]
    return {
        "name": judge.name,
        "judgements": list(judge.judgements),
        "quality": asdict(judge.quality) if judge.quality is not None else None,
        "exact": bool(getattr(judge, "exact", False)),
        "n_verdicts": len(mine),
        "n_unscored": sum(v.score is None for v in mine),
    }


def _examples(answered: Mapping[str, Answered], per_kind: int) -> list[dict[str, Any]]:
    """Return the first prompts of every kind with every system's answer; no choice by result."""
    taken: dict[tuple[str, str, str], int] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for sample in answered["base"].samples:
        example = sample.answer.example
        kind = example.kind if example.probe == "question" else ""
        place = (example.axis, example.probe, kind)
        if taken.get(place, 0) < per_kind:
            taken[place] = taken.get(place, 0) + 1
            chosen[example.id] = {
                "prompt": example.prompt,
                "axis": example.axis,
                "probe": example.probe,
                "kind": example.kind,
                "answers": {},
            }
    for name, system in answered.items():
        for sample in system.samples:
            if sample.answer.example.id in chosen:
                weights = sample.answer.weights
                chosen[sample.answer.example.id]["answers"][name] = {
                    "text": sample.answer.text,
                    "weights": dict(weights) if weights is not None else None,
                    "acceptable": sample.acceptable,
                }
    return list(chosen.values())
