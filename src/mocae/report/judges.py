"""How far each judge can be trusted, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mocae.report.schema import read_estimate
from mocae.report.tables import format_count, format_estimate

__all__ = ["JudgeRow", "judge_rows"]

_UNCHECKED = "not checked against labelled answers"
_EXACT = "exact: the task defines which answers are right, so there is no error to measure"


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """One judge as it is printed.

    `short` is its quality and what it left unscored in half a sentence, for the places where it is cited; `asked` is
    what asking a server took and how often the order of answers decided, "" for a judge without a server.
    """

    name: str
    judgements: tuple[str, ...]
    verdicts: str
    unscored: str
    n: str
    accuracy: str
    balanced: str
    auroc: str
    asked: str
    note: str
    short: str


def judge_rows(report: Mapping[str, Any]) -> list[JudgeRow]:
    """Return a row for each judge; one that was never tested on labelled answers says so."""
    return [_row(judge) for judge in report.get("judges") or ()]


def _row(judge: Mapping[str, Any]) -> JudgeRow:
    quality = judge.get("quality") or {}
    accuracy, balanced, auroc = (read_estimate(quality.get(k)) for k in ("accuracy", "balanced_accuracy", "auroc"))
    n = format_count(quality.get("n"))
    told = str(quality.get("note") or "")
    unmeasured = _EXACT if judge.get("exact") is True else _UNCHECKED
    note = told or ("tested on labelled answers" if quality else unmeasured)
    measured = f"balanced accuracy {format_estimate(balanced)} on {n} labelled answers"
    verdicts, unscored = format_count(judge.get("n_verdicts")), format_count(judge.get("n_unscored"))
    return JudgeRow(
        name=str(judge["name"]),
        judgements=tuple(judge.get("judgements") or ()),
        verdicts=verdicts,
        unscored=unscored,
        n=n,
        accuracy=format_estimate(accuracy),
        balanced=format_estimate(balanced),
        auroc=format_estimate(auroc, "number"),
        asked=_asked(judge),
        note=note,
        short=f"{note if balanced.value is None else measured}, {unscored} of {verdicts} verdicts unscored",
    )


def _spent(usage: Mapping[str, Any]) -> list[str]:
    tokens = (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
    cost = [] if usage.get("cost") is None else [f"cost {usage['cost']:.4g}"]
    return [f"{format_count(tokens)} tokens", *cost]


def _asked(judge: Mapping[str, Any]) -> str:
    usage, flips = judge.get("usage") or {}, read_estimate(judge.get("flip_rate"))
    told = []
    if usage:
        told.append(
            f"{format_count(usage.get('requests'))} requests, {format_count(usage.get('cached'))} from the cache"
        )
        told += _spent(usage)
    before = judge.get("usage_before") or {}
    if before.get("answered"):
        told.append(f"earlier starts: {format_count(before['answered'])} replies, {', '.join(_spent(before))}")
    if flips.value is not None:
        told.append(f"{format_estimate(flips)} flipped with the order")
    return "; ".join(told)
