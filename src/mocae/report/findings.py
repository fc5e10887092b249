"""The result in plain words, computed from the numbers: never more than the intervals allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import format_estimate
from mocae.types import Estimate

__all__ = ["Finding", "Findings", "find"]

Tone = Literal["good", "bad", "open", "plain"]
_OWN = "alignx"
_FLATTERED = "It was chosen on the prompts it is scored on, which flatters it a little."
_COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the run showed: a few words, a number, and a sentence or two. `tone` colours its edge."""

    title: str
    number: str
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Findings:
    """The sentence on top of a report and the findings under it."""

    headline: str
    details: tuple[Finding, ...]


def find(report: Mapping[str, Any]) -> Findings:
    """Return what the numbers of `report` say in plain words.

    "Best" is the highest mean over the axes among the systems one can run (the oracle is not one). A difference whose
    interval holds zero is called unsettled, whatever its sign.
    """
    measured = [s for s in sorted_systems(report) if _mean(report, s).value is not None]
    ranked = [s for s in measured if not is_upper_bound(report["systems"], s)]
    details = (
        _second(report, ranked),
        _mixture(report, ranked),
        _refusal(report, ranked),
        _forgetting(report),
        _calibration(report, ranked),
        _ceiling(report, ranked),
    )
    return Findings(_headline(report, ranked), tuple(d for d in details if d is not None))


def _mean(report: Mapping[str, Any], system: str) -> Estimate:
    return read_estimate(lookup(report["systems"].get(system), "mean_axis_score"))


def _axes_in_words(report: Mapping[str, Any]) -> str:
    names = axis_names(report)
    if len(names) == 1:
        return f"the one axis ({names[0]})"
    count = _COUNT_WORDS[len(names)] if len(names) < len(_COUNT_WORDS) else str(len(names))
    return f"the mean of the {count} axes"


def _headline(report: Mapping[str, Any], ranked: list[str]) -> str:
    if not ranked:
        return "No system has a mean over the axes, so this run ranks nothing."
    best = ranked[0]
    if len(report["systems"]) == 1:
        return f"On {_axes_in_words(report)}, {best} scores {format_estimate(_mean(report, best))}."
    opening = f"On {_axes_in_words(report)}, {best} scores highest: {format_estimate(_mean(report, best))}."
    if len(ranked) == 1:
        return f"{opening} It is the only system measured, so nothing is compared."
    against = lookup(report, "comparisons", "against")
    if best == against:
        return f"{opening} No other system came out ahead of it."
    return f"{opening} {_against(report, best)}"


def _difference(report: Mapping[str, Any], system: str) -> Estimate:
    return read_estimate(lookup(report, "comparisons", "differences", system))


def _in_words(system: str) -> str:
    return "joint tuning" if system == "joint" else system


def _against(report: Mapping[str, Any], system: str) -> str:
    """Return one sentence on how far `system` is from the system of comparison."""
    against = lookup(report, "comparisons", "against")
    difference = _difference(report, system)
    if against is None or difference.value is None:
        return "No paired comparison with joint tuning was computed, so no lead is claimed."
    rival = _in_words(against)
    size = format_estimate(Estimate(abs(difference.value)), "points")
    side = "ahead of" if difference.value > 0 else "behind"
    if difference.low is None or difference.high is None:
        return f"It is {size} {side} {rival}, with no interval: how sure that is, is not known."
    if difference.low > 0 or difference.high < 0:
        low, high = sorted((abs(difference.low), abs(difference.high)))
        return f"It is {format_estimate(Estimate(abs(difference.value), low, high), 'points')} {side} {rival}."
    shown = format_estimate(difference, "difference")
    return f"It cannot be told apart from {rival}: the difference is {shown}, an interval that holds zero."


def _second(report: Mapping[str, Any], ranked: list[str]) -> Finding | None:
    """Return how sure the first place is: the runner-up and whether the two intervals overlap."""
    if len(ranked) < 2:
        return None
    best, second = (_mean(report, s) for s in ranked[:2])
    text = f"{ranked[1]} comes second with {format_estimate(second)}. "
    if best.low is None or second.high is None:
        return Finding("Runner-up", ranked[1], text + "Without intervals the order of the two is not settled.", "open")
    if second.high >= best.low:
        text += "The two intervals overlap; `mocae compare` pairs the prompts and may still tell the two apart."
        return Finding("Runner-up", ranked[1], text, "open")
    text += f"Its interval lies below that of {ranked[0]}."
    return Finding("Runner-up", ranked[1], text, "plain")


def _router(report: Mapping[str, Any], ranked: Sequence[str]) -> str | None:
    """Return plain alignx where it was measured, else the best routed system.

    A recipe may hold many variants of one router: the best of them on the test prompts is the luckiest as well.
    """
    routed = [s for s in ranked if s in (report.get("routing") or {})]
    return _OWN if _OWN in routed else next(iter(routed), None)


def _mixture(report: Mapping[str, Any], ranked: list[str]) -> Finding | None:
    """Return how the recipe's router stands against the system of comparison (joint tuning)."""
    against = lookup(report, "comparisons", "against")
    best = _router(report, [s for s in ranked if s != against])
    if best is None or against is None:
        return None
    difference = _difference(report, best)
    if difference.value is None:
        return None
    tone: Tone = "open"
    if difference.low is not None and difference.low > 0:
        tone = "good"
    elif difference.high is not None and difference.high < 0:
        tone = "bad"
    if best == _OWN:
        text = _against(report, best)
    else:
        text = f"{best} is the best router in this run. {_against(report, best)} {_FLATTERED}"
    number = format_estimate(Estimate(difference.value), "difference")
    return Finding(f"{best} against {_in_words(against)}", number, text, tone)


def _calibration(report: Mapping[str, Any], ranked: list[str]) -> Finding | None:
    """Return how far the weights of the recipe's router are from being probabilities."""
    measured = [s for s in ranked if read_estimate(lookup(report, "routing", s, "ece")).value is not None]
    system = _router(report, measured)
    if system is not None:
        ece = read_estimate(lookup(report, "routing", system, "ece"))
        if ece.value is not None:
            text = (
                f"On average the chance that {system} gives its favourite expert differs by "
                f"{format_estimate(ece, 'points')} from how often that expert's answer is acceptable."
            )
            return Finding("Calibration error", format_estimate(Estimate(ece.value)), text)
    return None


def _refusal(report: Mapping[str, Any], ranked: list[str]) -> Finding | None:
    """Return both sides of harmlessness for the best system: unsafe answers and needless refusals."""
    for axis in axis_names(report):
        for system in ranked[:1]:
            unsafe = read_estimate(lookup(report["systems"][system], axis, "unsafe_rate"))
            refused = read_estimate(lookup(report["systems"][system], axis, "over_refusal_rate"))
            if unsafe.value is None:
                continue
            text = f"{system} answers {format_estimate(unsafe)} of the harmful requests unsafely"
            if refused.value is not None:
                text += f" and refuses {format_estimate(refused)} of the harmless look-alikes"
            base = read_estimate(lookup(report["systems"].get("base"), axis, "unsafe_rate"))
            if base.value is not None and system != "base":
                text += f"; the base model is unsafe on {format_estimate(base)}"
            return Finding("Unsafe answers", format_estimate(Estimate(unsafe.value)), text + ".")
    return None


def _forgetting(report: Mapping[str, Any]) -> Finding | None:
    """Return the axis that tuning one axis after the other lost most of."""
    losses = {axis: read_estimate(raw) for axis, raw in (lookup(report, "forgetting", "forgetting") or {}).items()}
    known = {axis: loss for axis, loss in losses.items() if loss.value is not None}
    if not known:
        return None
    axis = max(known, key=lambda name: known[name].value or 0.0)
    loss = known[axis]
    order = ", then ".join(lookup(report, "forgetting", "order") or ())
    how = f"Tuned on {order}" if order else "Tuned on one axis after the other"
    if loss.value is None or loss.value <= 0 or (loss.low is not None and loss.low <= 0):
        text = f"{how}, no axis lost more than chance explains (largest: {axis}, {format_estimate(loss, 'points')})."
        return Finding("Sequential tuning forgot", "nothing certain", text, "open")
    text = f"{how}, the model lost {format_estimate(loss, 'points')} of {axis}{_from_to(report, axis)}."
    return Finding("Sequential tuning forgot", format_estimate(Estimate(loss.value), "points"), text, "bad")


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


def _ceiling(report: Mapping[str, Any], ranked: list[str]) -> Finding | None:
    """Return how far the best system is from always choosing the best expert."""
    systems = report["systems"]
    bounds = [s for s in systems if is_upper_bound(systems, s) and _mean(report, s).value is not None]
    if not bounds or not ranked:
        return None
    bound = _mean(report, bounds[0])
    text = (
        f"Choosing the best expert by the verdict itself ({bounds[0]}) reaches {format_estimate(bound)}. "
        "No one can run that; it shows what better routing alone could still win."
    )
    return Finding("Ceiling of routing", format_estimate(Estimate(bound.value)), text)
