"""From judged answers to `report.json`, of a run and of an evaluation alike."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import mocae
from mocae.config import Recipe
from mocae.distributed import size
from mocae.evaluation import (
    Bootstrap,
    difference,
    forgetting,
    headroom,
    mean_score,
    measure_routing,
    measure_system,
    measure_weights,
    probes_by_axis,
    sample_to_json,
)
from mocae.files import write_whole
from mocae.judges import Judge
from mocae.pipelines.check.rows import too_few
from mocae.pipelines.verdicts import judge_entry, sample_notes
from mocae.stages.answers import Answered
from mocae.stages.judging import audit_all
from mocae.stages.rows import Rows
from mocae.systems import System
from mocae.types import Example, Sample

__all__ = [
    "SCHEMA",
    "Entrant",
    "RunResult",
    "environment",
    "sections",
    "summarise",
    "write_result",
]

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run or an evaluation made: the report as a dictionary, and where report and page lie."""

    report: dict[str, Any]
    report_path: Path
    html_path: Path


def write_result(root: Path, report: dict[str, Any], samples: Iterable[Sample]) -> RunResult:
    """Return where `report.json` and the page lie, after writing the report and `samples.jsonl`, each whole.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    lines = (json.dumps(sample_to_json(sample), ensure_ascii=False) + "\n" for sample in samples)
    write_whole(root / "samples.jsonl", "".join(lines))
    path = write_whole(root / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return RunResult(report, path, root / "report.html")


@dataclass(frozen=True, slots=True)
class Entrant:
    """What came of one system.

    Attributes:
        system: which one.
        answered: judged answers and cost.
        on_the_way: axis -> answers after it was trained, for a system trained axis after axis.
        updates: what taking in something new costs it, see `mocae.pipelines.updates.updates`.
        warnings: what a reader of the report must know.
    """

    system: System
    answered: Answered
    on_the_way: Mapping[str, Answered] = field(default_factory=dict)
    updates: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def summarise(
    recipe: Recipe,
    *,
    entrants: Mapping[str, Entrant],
    rows: Rows,
    judges: Sequence[Judge],
    outcomes: Sequence[Sample],
    overlap: Mapping[str, Any] | None,
    n_base_parameters: int,
    environment: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return `report.json` of a run, version 1.

    Args:
        recipe: as run.
        entrants: system -> what came of it; "base", first of all, and one "expert:<axis>" for each axis among them.
        rows: for the counts.
        judges: for their quality.
        outcomes: judged answers of the experts to calibration prompts.
        overlap: of the experts, see `mocae.stages.overlap.overlap`.
        n_base_parameters: of the base model.
        environment: versions and hardware.
        notes: what a reader must know beside what the recipe and the systems tell.
    """
    boot = Bootstrap(n_resamples=recipe.report.resamples, confidence=recipe.report.confidence, seed=recipe.seed)
    axes = recipe.axis_names
    answered = {name: entrant.answered for name, entrant in entrants.items()}
    base = answered["base"].samples
    report = sections(
        answered,
        axes,
        judges,
        rows.all_of("test"),
        boot=boot,
        counts={**rows.counts(), "skipped": rows.n_skipped},
        notes=[
            *(["synthetic, tiny model"] if recipe.base.model == "pocket" else []),
            *_conflict(recipe),
            *recipe.notes,
            *notes,
            *too_few(rows),
            *(warning for entrant in entrants.values() for warning in entrant.warnings),
        ],
        base=base,
        per_kind=recipe.report.examples,
        n_base_parameters=n_base_parameters,
    )
    for name, entrant in entrants.items():
        report["systems"][name] |= _about(entrant)
    orders = {
        name: lost
        for name, entrant in entrants.items()
        if (lost := forgetting(axes, base, {a: on.samples for a, on in entrant.on_the_way.items()}, boot)) is not None
    }
    return report | {
        "recipe": recipe.model_dump(mode="json"),
        "routing": _routing(entrants, axes, boot),
        "forgetting": next(iter(orders.values()), {}),
        "collapse": {"orders": orders, "overlap": overlap},
        "updates": {name: entrant.updates for name, entrant in entrants.items() if entrant.updates},
        "comparisons": _comparisons(entrants, axes, boot),
        "headroom": _headroom(outcomes, axes, boot),
        "environment": dict(environment),
    }


def sections(
    answered: Mapping[str, Answered],
    axes: Sequence[str],
    judges: Sequence[Judge],
    tests: Sequence[Example],
    *,
    boot: Bootstrap,
    counts: Mapping[str, Any],
    notes: Sequence[str],
    base: Sequence[Sample] = (),
    per_kind: int = 3,
    n_base_parameters: int | None = None,
) -> dict[str, Any]:
    """Return what every `report.json` says of judged answers; `recipe` and `environment` are still to be added.

    Args:
        answered: system -> its judged answers and their cost.
        axes: names, in order.
        judges: who decided.
        tests: the prompts, for the audit of the judges.
        boot: how intervals are made.
        counts: of rows.
        notes: labels that stand beside every number.
        base: answers of the base model, which others are measured against where no judge compares.
        per_kind: examples of every kind of prompt.
        n_base_parameters: of the base model; None: not known.
    """
    audited = audit_all(judges, tests)
    every = [sample for system in answered.values() for sample in system.samples]
    systems = {
        name: {**measure_system(one.samples, base, axes, boot=boot), "cost": _cost(one, n_base_parameters)}
        for name, one in answered.items()
    }
    return {
        "schema": SCHEMA,
        "systems": systems,
        "probes": probes_by_axis(every, axes),
        "judges": [
            judge_entry(judge, every) | {"audit": audit} for judge, audit in zip(judges, audited.audits, strict=True)
        ],
        "constants": list(audited.constants),
        "examples": _examples(answered, per_kind),
        "counts": {**counts, "unscored": sum(sample.acceptable is None for sample in every)},
        "notes": [*notes, *audited.notes, *sample_notes(every)],
    }


def _conflict(recipe: Recipe) -> list[str]:
    """Return a note where sources of training data are made to contradict each other."""
    sources = [source for axis in recipe.axes for source in axis.train if source.source == "pocket"]
    most = max((float(source.options.get("conflict", 1.0)) for source in sources), default=0.0)  # type: ignore[arg-type]
    return ["the axes' training data contradict each other by construction"] if most > 0 else []


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


def _about(entrant: Entrant) -> dict[str, Any]:
    system = entrant.system
    return {
        "about": system.about,
        "policy": system.policy,
        "plain": system.name == system.policy,
        "upper_bound": system.upper_bound is not None,
        "one_adapter": system.one_adapter,
        "uses_verdicts": system.uses_verdicts and bool(entrant.updates.get("verdicts")),
    }


def _routing(entrants: Mapping[str, Entrant], axes: Sequence[str], boot: Bootstrap) -> dict[str, Any]:
    experts = {axis: entrants[f"expert:{axis}"].answered.samples for axis in axes}
    routing = {}
    for name, entrant in entrants.items():
        samples = entrant.answered.samples
        if entrant.system.weights_mean == "chances":
            routing[name] = measure_routing(samples, experts, calibrated=True, boot=boot)
        elif entrant.system.weights_mean == "shares":
            routing[name] = measure_weights(samples, axes, boot=boot)
    return {name: measured for name, measured in routing.items() if measured is not None}


def _cost(system: Answered, n_base: int | None) -> dict[str, Any]:
    cost = system.cost
    return {
        "seconds": round(cost.seconds, 3),
        "tokens_per_second": round(cost.n_tokens / cost.seconds, 1) if cost.seconds > 0 else None,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "parameters": None if n_base is None else n_base + system.n_active,
        "trained_parameters": None if n_base is None else system.n_active,
    }


def _headroom(outcomes: Sequence[Sample], axes: Sequence[str], boot: Bootstrap) -> dict[str, Any] | None:
    """Return what routing can win, see `mocae.evaluation.headroom`, and how many answers were judged to know it."""
    experts: dict[str, list[Sample]] = {}
    for sample in outcomes:
        experts.setdefault(sample.system, []).append(sample)
    measured = headroom(experts, axes, boot=boot) if experts else None
    return None if measured is None else measured | {"n_verdicts": len(outcomes)}


def _comparisons(entrants: Mapping[str, Entrant], axes: Sequence[str], boot: Bootstrap) -> dict[str, Any]:
    """Return paired differences in the mean over the axes.

    `differences` are against joint training, else against the base model; `lead` has the best system one can run and
    its lead over every other.
    """
    samples = {name: entrant.answered.samples for name, entrant in entrants.items()}
    against = "joint" if "joint" in samples else "base"
    means = {
        name: mean_score(samples[name], axes, boot=Bootstrap(1)).value
        for name, entrant in entrants.items()
        if entrant.system.upper_bound is None
    }
    best = max(
        (name for name, mean in means.items() if mean is not None), key=lambda n: means[n] or 0.0, default=against
    )

    def paired(first: str, second: str) -> dict[str, Any]:
        return asdict(difference(samples[first], samples[second], axes, boot=boot))

    return {
        "against": against,
        "differences": {name: paired(name, against) for name in samples if name != against},
        "lead": {"system": best, "over": {name: paired(best, name) for name in samples if name != best}},
    }


def _examples(answered: Mapping[str, Answered], per_kind: int) -> list[dict[str, Any]]:
    """Return the first prompts of every kind with every system's answer; no choice by result."""
    taken: Counter[tuple[str, str, str]] = Counter()
    chosen: dict[str, dict[str, Any]] = {}
    for sample in next(iter(answered.values())).samples:
        example = sample.answer.example
        kind = (example.axis, example.probe, example.kind if example.probe == "question" else "")
        taken[kind] += 1
        if taken[kind] <= per_kind:
            shown = {name: getattr(example, name) for name in ("prompt", "axis", "probe", "kind")}
            chosen[example.id] = {**shown, "answers": {}}
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
