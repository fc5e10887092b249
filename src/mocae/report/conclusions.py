"""What every section of a page shows, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocae.report.schema import axis_names, lookup, read_estimate, sorted_systems
from mocae.report.tables import MINUS, format_estimate

__all__ = ["LEAST_HEADROOM", "conclude", "whole", "whom"]

LEAST_HEADROOM = 0.05
"""Where the best choice among the experts wins less than this over the best of them alone, routing cannot matter."""

_OWN = "alignx"
_WHOLE = 0.995
"""Weight from which an expert has a prompt to itself."""

_ALIKE = 0.5
"""CKA from which two experts count as treating prompts alike."""

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
        "room": _room(report),
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


def _room(report: Mapping[str, Any]) -> str:
    """Return whether routing can matter: what the best choice among the experts would win over the best of them."""
    if len(report["systems"]) == 1:
        return ""
    room = read_estimate(lookup(report, "headroom", "headroom"))
    if room.value is None:
        return "Can routing matter? Not known: the experts were not judged on an even draw of calibration prompts."
    oracle, best = (format_estimate(read_estimate(report["headroom"].get(key))) for key in ("oracle", "best"))
    name = report["headroom"].get("best_system")
    text = (
        f"The right expert for each of {room.n} calibration prompts would reach {oracle}, the best one alone "
        f"({name}) {best}: {format_estimate(room, 'points')} to win"
    )
    if room.value < LEAST_HEADROOM:
        return f"Can routing matter? No (no-go). {text}. Below 5 points, routing cannot matter here."
    if room.low is None or room.low < LEAST_HEADROOM:
        return f"Can routing matter? Perhaps. {text}, and the interval reaches below the 5 points it takes."
    return f"Can routing matter? Yes (go). {text}."


def whole(weights: Mapping[str, Any]) -> bool:
    """Return whether one expert has all the weight, up to what rounds to 100 %."""
    values = [read_estimate(weight).value or 0.0 for weight in weights.values()]
    return max(values, default=0.0) >= _WHOLE and sum(map(abs, values)) - max(values) < 1 - _WHOLE


def whom(report: Mapping[str, Any]) -> list[str]:
    """Return for each router, best mean first, which kinds of prompt it sends to which expert."""
    routing, sentences = report.get("routing") or {}, []
    for router in (name for name in sorted_systems(report) if name in routing):
        kinds: dict[str, list[str]] = {}
        for kind, weights in (lookup(routing[router], "weights_by_kind") or {}).items():
            shares = {axis: read_estimate(weight).value or 0.0 for axis, weight in weights.items()}
            most = max(shares, key=lambda axis: shares[axis])
            share = "" if whole(weights) else f" ({100 * shares[most]:.0f} %)"
            kinds.setdefault(most, []).append(f"{kind.replace('_', ' ')}{share}")
        if kinds:
            sent = "; ".join(f"{', '.join(names)} to {axis}" for axis, names in kinds.items())
            sentences.append(f"{router} sends {sent}.")
    return sentences


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
    how = f"taught {order}" if order else "taught one axis after the other"
    if loss.value is None or loss.value <= 0 or (loss.low is not None and loss.low <= 0):
        size = format_estimate(loss, "points")
        shown = f"does not show here: {how}, no axis lost more than chance explains (largest: {axis}, {size})"
    else:
        lost = format_estimate(loss, "points")
        shown = f"shows here: {how}, the model lost {lost} of {axis}"
    return f"Axis collapse (learning one axis unlearns another) {shown}."


def _overlap(report: Mapping[str, Any]) -> str:
    """Return what the experts' changes have in common, with what follows for one shared set of weights."""
    pairs = lookup(report, "collapse", "overlap", "pairs") or ()
    ckas = [v for p in pairs if (v := read_estimate(p.get("cka")).value) is not None]
    cosines = {(p["first"], p["second"]): v for p in pairs if (v := read_estimate(p.get("cosine")).value) is not None}
    parts = []
    if ckas:
        alike = min(ckas) >= _ALIKE
        then = "so collapse does not show there" if alike else "so one set of weights would have to do both"
        parts.append(
            f"Two experts treat the same prompts {'much alike' if alike else 'in different ways'} "
            f"(CKA {min(ckas):.2f} to {max(ckas):.2f}; 1 alike, 0 not), {then}."
        )
    if cosines:
        low, high = min(cosines.values()), max(cosines.values())
        first, second = min(cosines, key=lambda pair: cosines[pair])
        said = f"In their weights (cosine {low:+.2f} to {high:+.2f}; 1 the same change, -1 the opposite)"
        if low < -_AGAINST_EACH_OTHER:
            then = f"{first} and {second} undo part of each other, which shared weights must pay for"
        elif high > _AGAINST_EACH_OTHER:
            then = "they agree where they meet, so collapse does not show in the weights"
        else:
            then = "they are unrelated, so collapse does not show in the weights"
        parts.append(f"{said.replace('-', MINUS)}, {then}.")
    return " ".join(parts)
