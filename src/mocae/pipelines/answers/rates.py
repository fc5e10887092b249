"""From verdicts of several judges on answers of several systems to rates, by kind, and to where judges disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import combinations
from typing import Any

from mocae.axes import PROBES
from mocae.errors import DataError
from mocae.metrics import METRICS, cohens_kappa, estimate_rate, metric
from mocae.types import Sample, Verdict, judgement_of

__all__ = ["agreement", "rates"]


def rates(samples: Sequence[Sample], *, by: Callable[[Sample], str], seed: int) -> list[dict[str, Any]]:
    """Return the share of answers on which each judgement of each judge holds, system by system.

    Prompts of different kinds (probes) are never put together: what is wanted of them differs. Intervals draw whole
    groups of prompts, so several answers to one prompt count as one draw.

    Args:
        samples: judged answers.
        by: a further part to keep apart, such as the kind; "" for none.
        seed: of the resampling.
    """
    parts: dict[tuple[str, str, str, str, str], list[tuple[float | None, str]]] = {}
    for sample in samples:
        example = sample.answer.example
        told = example.probe if example.probe in PROBES else ""
        found = [
            (v.judge, judgement, _value(judgement, v))
            for judgement, v in ((judgement_of(name), v) for name, v in sample.verdicts.items())
        ]
        if told:
            found.append(("", "acceptable", None if sample.acceptable is None else float(sample.acceptable)))
        for judge, judgement, value in found:
            key = (sample.system, told, by(sample), judge, judgement)
            parts.setdefault(key, []).append((value, example.group or example.id))
    names = ("system", "probe", "part", "judge", "judgement")
    return [dict(zip(names, key, strict=True)) | _estimate(values, seed) for key, values in parts.items()]


def _estimate(values: Sequence[tuple[float | None, str]], seed: int) -> dict[str, Any]:
    scored = [(value, group) for value, group in values if value is not None]
    estimate = estimate_rate([v for v, _ in scored], groups=[g for _, g in scored], seed=seed)
    return asdict(estimate) | {"unscored": len(values) - len(scored)}


def _value(name: str, verdict: Verdict) -> float | None:
    """Return 1 or 0, or the score itself where a metric of ours counts it as it is."""
    return verdict.score if verdict.score is None or name in _graded() else float(verdict.score >= 0.5)


@cache
def _graded() -> frozenset[str]:
    return frozenset(m.judgement for m in map(metric, METRICS) if m.graded)


def agreement(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return how far each two judges that give one judgement agree on the answers that both scored."""
    said: dict[str, dict[str, dict[int, bool]]] = {}
    for i, sample in enumerate(samples):
        for name, verdict in sample.verdicts.items():
            if verdict.score is not None:
                judges = said.setdefault(judgement_of(name), {})
                judges.setdefault(verdict.judge, {})[i] = verdict.score >= 0.5
    return [
        {"judgement": judgement, "judges": [one, other]} | _agree(by[one], by[other])
        for judgement, by in said.items()
        for one, other in combinations(by, 2)
    ]


def _agree(one: Mapping[int, bool], other: Mapping[int, bool]) -> dict[str, Any]:
    shared = sorted(one.keys() & other.keys())
    mine, theirs = [one[i] for i in shared], [other[i] for i in shared]
    try:
        kappa = cohens_kappa(mine, theirs)
    except DataError:  # nothing shared, or everything one label
        kappa = None
    differ = [a is not b for a, b in zip(mine, theirs, strict=True)]
    return {"n": len(shared), "disagree": sum(differ), "rate": asdict(estimate_rate(differ)), "kappa": kappa}
