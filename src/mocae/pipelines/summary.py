"""From judged answers to `report.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

import mocae
from mocae.config import Recipe
from mocae.distributed import size
from mocae.evaluation import Bootstrap, difference, measure_routing, measure_system, measure_weights, probes_by_axis
from mocae.judges import Judge
from mocae.pipelines.collapse import forgetting
from mocae.pipelines.contestants import Contestant
from mocae.pipelines.judges import Audited
from mocae.pipelines.rows import Rows
from mocae.pipelines.systems import Answered
from mocae.types import Sample

__all__ = ["SCHEMA", "environment", "summarise"]

SCHEMA = 1


def summarise(
    recipe: Recipe,
    *,
    contestants: Mapping[str, Contestant],
    rows: Rows,
    judges: Sequence[Judge],
    audited: Audited,
    overlap: Mapping[str, Any] | None,
    updates: Mapping[str, Mapping[str, Any]],
    n_base_parameters: int,
    notes: Sequence[str],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `report.json`, version 1.

    Args:
        recipe: as run.
        contestants: system -> what came of it; "base" and one "expert:<axis>" for each axis among them.
        rows: for the counts.
        judges: for their quality.
        audited: what they say to constant answers.
        overlap: of the experts, see `mocae.pipelines.collapse.overlap`.
        updates: system -> what taking in something new costs it, see `mocae.pipelines.updates.updates`.
        n_base_parameters: of the base model.
        notes: labels that stand beside every number.
        environment: versions and hardware.
    """
    boot = Bootstrap(n_resamples=recipe.report.resamples, confidence=recipe.report.confidence, seed=recipe.seed)
    axes = recipe.axis_names
    answered = {name: contestant.answered for name, contestant in contestants.items()}
    base = answered["base"].samples
    systems = {}
    for name, system in answered.items():
        entry = measure_system(system.samples, base, axes, boot=boot)
        entry["cost"] = _cost(system, n_base_parameters)
        systems[name] = entry
    experts = {axis: answered[f"expert:{axis}"].samples for axis in axes}
    routing = {}
    for name, contestant in contestants.items():
        samples = answered[name].samples
        if contestant.calibrated is not None:
            measured = measure_routing(samples, experts, calibrated=contestant.calibrated, boot=boot)
        elif contestant.own_router:
            measured = measure_weights(samples, axes, boot=boot)
        else:
            continue
        if measured is not None:
            routing[name] = measured
    orders = {
        name: forgetting(axes, base, contestant.stages, boot)
        for name, contestant in contestants.items()
        if contestant.stages
    }
    orders = {name: found for name, found in orders.items() if found is not None}
    every = [sample for system in answered.values() for sample in system.samples]
    return {
        "schema": SCHEMA,
        "recipe": recipe.model_dump(mode="json"),
        "systems": systems,
        "probes": probes_by_axis(base, axes),
        "routing": routing,
        "forgetting": next(iter(orders.values()), {}),
        "collapse": {"orders": orders, "overlap": overlap},
        "updates": {name: entry for name, entry in updates.items() if entry},
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
            *(warning for contestant in contestants.values() for warning in contestant.warnings),
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
