"""What every section of a page shows, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocae.report.schema import axis_names, lookup, read_estimate
from mocae.report.tables import MINUS, format_estimate
from mocae.types import Estimate

__all__ = ["conclude"]

_OWN = "alignx"
_AGAINST_EACH_OTHER = 0.05
"""Task vectors with a cosine nearer to zero than this count as unrelated."""


def conclude(report: Mapping[str, Any], ranked: list[str]) -> dict[str, str]:
    """Return section -> what its numbers show, for the sections that have some.

    Args:
        report: a `report.json`.
        ranked: systems one can run, best mean first.
    """
    router = _router(report, ranked)
    told = {
        "forgetting": _forgetting(report),
        "overlap": _overlap(report),
        "refusal": _refusal(report, ranked),
        "routing": _routing(report, router),
        "calibration": _calibration(report, router),
    }
    return {section: text for section, text in told.items() if text}


def _router(report: Mapping[str, Any], ranked: list[str]) -> str | None:
    """Return plain alignx where it was measured, else the best routed system.

    A recipe may hold many variants of one router: the best of them on the test prompts is the luckiest as well.
    """
    routed = [s for s in ranked if s in (report.get("routing") or {})]
    return _OWN if _OWN in routed else next(iter(routed), None)


def _routing(report: Mapping[str, Any], router: str | None) -> str:
    wrong = read_estimate(lookup(report, "routing", router or "", "misrouted_rate"))
    if wrong.value is None:
        return ""
    return (
        f"On {format_estimate(wrong)} of the test prompts (n = {wrong.n}) the expert that {router} likes best fails "
        "although another would have passed."
    )


def _calibration(report: Mapping[str, Any], router: str | None) -> str:
    ece = read_estimate(lookup(report, "routing", router or "", "ece"))
    if ece.value is None:
        return ""
    return (
        f"The chance that {router} gives its favourite expert is off by {format_estimate(ece, 'points')} on average "
        "from how often that expert's answer is acceptable."
    )


def _refusal(report: Mapping[str, Any], ranked: list[str]) -> str:
    """Return both sides of harmlessness for the best system: unsafe answers and needless refusals."""
    for axis in axis_names(report) if ranked else ():
        system = ranked[0]
        unsafe, refused = (
            read_estimate(lookup(report["systems"][system], axis, key)) for key in ("unsafe_rate", "over_refusal_rate")
        )
        if unsafe.value is None:
            continue
        text = f"{system} answers {format_estimate(unsafe)} of the harmful requests unsafely"
        if refused.value is not None:
            text += f" and refuses {format_estimate(refused)} of the harmless look-alikes"
        base = read_estimate(lookup(report["systems"].get("base"), axis, "unsafe_rate"))
        if base.value is not None and system != "base":
            text += f"; the base model is unsafe on {format_estimate(base)}"
        return f"{text}."
    return ""


def _forgetting(report: Mapping[str, Any]) -> str:
    """Return the axis that tuning one axis after the other lost most of."""
    losses = {axis: read_estimate(raw) for axis, raw in (lookup(report, "forgetting", "forgetting") or {}).items()}
    known = {axis: loss for axis, loss in losses.items() if loss.value is not None}
    if not known:
        return ""
    axis = max(known, key=lambda name: known[name].value or 0.0)
    loss = known[axis]
    order = ", then ".join(lookup(report, "forgetting", "order") or ())
    how = f"tuned on {order}" if order else "tuned on one axis after the other"
    if loss.value is None or loss.value <= 0 or (loss.low is not None and loss.low <= 0):
        size = format_estimate(loss, "points")
        return f"It does not show here: {how}, no axis lost more than chance explains (largest: {axis}, {size})."
    return f"It shows here: {how}, the model lost {format_estimate(loss, 'points')} of {axis}{_from_to(report, axis)}."


def _from_to(report: Mapping[str, Any], axis: str) -> str:
    """Return ", from its best 98.0 % (after ...) to 0.0 % at the end" read off the matrix, "" without one."""
    table = report["forgetting"]
    if not table.get("matrix") or axis not in (table.get("axes") or ()):
        return ""
    column = [read_estimate(row[table["axes"].index(axis)]).value for row in table["matrix"]]
    scored = [(value, stage) for value, stage in zip(column, table["stages"], strict=True) if value is not None]
    if column[-1] is None or not scored:
        return ""
    top, stage = max(scored, key=lambda pair: pair[0])
    first, last = (format_estimate(Estimate(value)) for value in (top, column[-1]))
    return f": from {first} at its best (stage {stage}) to {last}"


def _overlap(report: Mapping[str, Any]) -> str:
    """Return what the experts' changes have in common, with what follows for one shared set of weights."""
    pairs = lookup(report, "collapse", "overlap", "pairs") or ()
    ckas = [v for p in pairs if (v := read_estimate(p.get("cka")).value) is not None]
    cosines = {(p["first"], p["second"]): v for p in pairs if (v := read_estimate(p.get("cosine")).value) is not None}
    parts = []
    if ckas:
        parts.append(
            f"Do two experts treat the same prompts alike? (CKA; 1 alike, 0 not): {min(ckas):.2f} to {max(ckas):.2f}."
        )
    if cosines:
        low, high = min(cosines.values()), max(cosines.values())
        first, second = min(cosines, key=lambda pair: cosines[pair])
        said = f"Do their weights pull the same way? (cosine; 1 yes, -1 against each other): {low:+.2f} to {high:+.2f}"
        if low < -_AGAINST_EACH_OTHER:
            then = f"so {first} and {second} undo part of each other, which shared weights must pay for"
        elif high > _AGAINST_EACH_OTHER:
            then = "so they agree where they meet, and collapse does not show in the weights"
        else:
            then = "so they are unrelated, and collapse does not show in the weights"
        parts.append(f"{said.replace('-', MINUS)}, {then}.")
    return " ".join(parts)
