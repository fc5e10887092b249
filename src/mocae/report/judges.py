"""How far each judge can be trusted, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mocae.errors import ArtifactError
from mocae.judges import ConstantAnswer, JudgeAudit
from mocae.report.schema import read_estimate
from mocae.report.tables import DASH, format_count, format_estimate
from mocae.types import Estimate

__all__ = ["ConstantsTable", "JudgeRow", "constants_table", "judge_rows"]

_T = TypeVar("_T")
_AUDIT = TypeAdapter(JudgeAudit).validate_python
_CONSTANTS = TypeAdapter(list[ConstantAnswer]).validate_python
_UNCHECKED = "not checked against labelled answers"
_EXACT = "exact: the task defines which answers are right"


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """One judge as it is printed.

    `short` is its quality and what it left unscored in half a sentence, for the places where it is cited; `asked` is
    what asking a server took and how often the order of answers decided, "" for a judge without a server. `trust` says
    what its audit came to, and `audit` has the rows of it; both are empty where it was not audited.
    """

    name: str
    exact: bool
    quality: Estimate
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
    trust: str
    audit: JudgeAudit | None


@dataclass(frozen=True, slots=True)
class ConstantsTable:
    """What constant answers would reach: a row a constant, a column an axis and probe, cells as printed."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def judge_rows(report: Mapping[str, Any]) -> list[JudgeRow]:
    """Return a row for each judge; one that was never tested on labelled answers says so."""
    return [_row(judge) for judge in report.get("judges") or ()]


def _row(judge: Mapping[str, Any]) -> JudgeRow:
    quality = judge.get("quality") or {}
    accuracy, balanced, auroc = (read_estimate(quality.get(k)) for k in ("accuracy", "balanced_accuracy", "auroc"))
    n = format_count(quality.get("n"))
    told = str(quality.get("note") or "")
    exact = judge.get("exact") is True
    unmeasured = _EXACT if exact else _UNCHECKED
    note = told or ("tested on labelled answers" if quality else unmeasured)
    measured = f"balanced accuracy {format_estimate(balanced)} on {n} labelled answers"
    audit = None if judge.get("audit") is None else _read(_AUDIT, judge["audit"], "judges.audit")
    doubt = "not to be believed; " if audit is not None and not audit.believed else ""
    verdicts, unscored = format_count(judge.get("n_verdicts")), format_count(judge.get("n_unscored"))
    return JudgeRow(
        name=str(judge["name"]),
        exact=exact,
        quality=balanced,
        judgements=tuple(judge.get("judgements") or ()),
        verdicts=verdicts,
        unscored=unscored,
        n=n,
        accuracy=format_estimate(accuracy),
        balanced="exact" if exact and not quality else format_estimate(balanced),
        auroc=format_estimate(auroc, "number"),
        asked=_asked(judge),
        note=note,
        short=f"{doubt}{note if balanced.value is None else measured}, {unscored} of {verdicts} verdicts unscored",
        trust="" if audit is None else audit.verdict,
        audit=audit,
    )


def constants_table(report: Mapping[str, Any]) -> ConstantsTable | None:
    """Return what a system that always says the same would reach, None where nothing was tried.

    Raises:
        ArtifactError: the section has another shape.
    """
    found = _read(_CONSTANTS, report.get("constants") or [], "constants")
    if not found:
        return None
    shares = {(row.axis, row.probe, row.constant): format_estimate(Estimate(row.acceptable, n=row.n)) for row in found}
    columns = tuple(dict.fromkeys((row.axis, row.probe) for row in found))
    rows = tuple(
        (name, tuple(shares.get((*column, name), DASH) for column in columns))
        for name in dict.fromkeys(row.constant for row in found)
    )
    return ConstantsTable(columns, rows)


def _read(schema: Callable[[object], _T], value: object, where: str) -> _T:
    try:
        return schema(value)
    except ValidationError as error:
        raise ArtifactError(f"report.json: {where}: {error.errors()[0]['msg']}; evaluate the run again") from error


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
