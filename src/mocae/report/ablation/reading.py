"""What an ablation shows, in words: computed from the intervals, never more than they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mocae.errors import ArtifactError
from mocae.metrics import holm, p_value
from mocae.report.conclusions import LEAST_HEADROOM
from mocae.report.schema import is_upper_bound, lookup, read_estimate
from mocae.report.tables import format_estimate
from mocae.types import Estimate

__all__ = [
    "ABLATION_SCHEMA",
    "PartReading",
    "check_ablation",
    "confidence_of",
    "go",
    "headline",
    "mean_of",
    "read_parts",
    "sorted_names",
    "verdict",
]

ABLATION_SCHEMA = 2
Tone = Literal["good", "bad", "open"]
_BEST_RIVAL = "the best of joint training"


@dataclass(frozen=True, slots=True)
class PartReading:
    """What one setting buys.

    Attributes:
        system: the variant.
        parent: the system with the setting as it is.
        changed: the settings in which they differ, in words.
        difference: parent minus variant in the mean over the axes.
        by_seed: the same for every seed.
        p: p-value of no difference, corrected for all parts of the setting (Holm); None without an interval.
        verdict: one sentence.
        tone: "good" where the parent is better, "bad" where the variant is, "open" where neither is shown.
    """

    system: str
    parent: str
    changed: str
    difference: Estimate
    by_seed: tuple[float | None, ...]
    p: float | None
    verdict: str
    tone: Tone


def check_ablation(summary: Mapping[str, Any]) -> None:
    """Return nothing when `summary` can be drawn.

    Raises:
        ArtifactError: another schema version, or no settings.
    """
    if summary.get("schema") != ABLATION_SCHEMA:
        raise ArtifactError(
            f"ablation.json: schema: got {summary.get('schema')!r}, this version of mocae draws {ABLATION_SCHEMA}; "
            "the same `mocae ablate` command writes a new one from the finished runs"
        )
    if not summary.get("settings"):
        raise ArtifactError("ablation.json: settings: none; at least one is needed")


def confidence_of(summary: Mapping[str, Any]) -> float:
    """Return the confidence of the intervals in `ablation.json`."""
    return float(lookup(summary, "recipe", "report", "confidence") or 0.95)


def mean_of(setting: Mapping[str, Any], system: str) -> float | None:
    """Return a system's mean over axes and seeds, None where it was not measured."""
    value: float | None = lookup(setting["systems"], system, "mean_axis_score", "mean")
    return value


def go(setting: Mapping[str, Any]) -> str:
    """Return whether routing can matter, "" where the headroom of the experts was not measured."""
    mean, std = (lookup(setting, "headroom", part) for part in ("mean", "std"))
    if mean is None:
        return ""
    spread = "" if std is None else f" \u00b1 {100 * std:.1f} over the seeds"
    room = f"the right expert for each calibration prompt wins {100 * mean:.1f} points{spread} over the best one alone"
    if mean < LEAST_HEADROOM:
        return f"Routing cannot matter here (no-go): {room}, and it takes 5."
    return f"Routing can matter here (go): {room}."


def sorted_names(setting: Mapping[str, Any]) -> list[str]:
    """Return the systems by falling mean, those without one last."""
    known = {name: mean_of(setting, name) for name in setting["systems"]}
    return sorted(known, key=lambda name: float("inf") if known[name] is None else -(known[name] or 0.0))


def verdict(
    difference: Estimate, first: str, second: str, *, p: float | None = None, confidence: float = 0.95
) -> tuple[str, Tone]:
    """Return what the interval of first minus second allows to say, and its p-value where it stands among others.

    >>> verdict(Estimate(0.02, 0.01, 0.03), "alignx", "joint")
    ('alignx is better than joint, by 1.0 to 3.0 points.', 'good')
    >>> verdict(Estimate(0.001, -0.01, 0.012), "alignx", "without X")[0]
    'No difference shown: alignx may be up to 1.2 points better than without X, or up to 1.0 worse.'
    """
    low, high = difference.low, difference.high
    if difference.value is None:
        return "Not measured.", "open"
    if low is None or high is None:
        return f"{format_estimate(difference, 'difference')}, with no interval: nothing can be said.", "open"
    if p is not None and p > 1 - confidence and not low <= 0 <= high:
        return f"Not shown: the interval leaves 0 out, but not once all parts are counted (p = {p:.2f}).", "open"
    if low > 0:
        return f"{first} is better than {second}, by {_range(low, high)}.", "good"
    if high < 0:
        return f"{second} is better than {first}, by {_range(-high, -low)}.", "bad"
    up, down = (f"{100 * abs(end):.1f}" for end in (high, low))
    return f"No difference shown: {first} may be up to {up} points better than {second}, or up to {down} worse.", "open"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f} points"


def read_parts(setting: Mapping[str, Any], *, confidence: float = 0.95) -> list[PartReading]:
    """Return what each variant of a setting's systems says, in the order of the recipe.

    Many parts stand side by side, so their p-values are corrected for each other (`mocae.metrics.holm`).
    """
    parts = setting.get("parts") or ()
    differences = [read_estimate(part["difference"]) for part in parts]
    corrected = holm([p_value(difference, confidence=confidence) for difference in differences])
    readings = []
    for part, difference, p in zip(parts, differences, corrected, strict=True):
        sentence, tone = verdict(difference, part["parent"], part["system"], p=p, confidence=confidence)
        changed = "; ".join(f"{key}: {_word(a)} \u2192 {_word(b)}" for key, (a, b) in part["changed"].items())
        by_seed = tuple(part["difference"].get("by_seed") or ())
        readings.append(PartReading(part["system"], part["parent"], changed, difference, by_seed, p, sentence, tone))
    return readings


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def headline(summary: Mapping[str, Any], subject: str = "alignx") -> list[str]:
    """Return the first paragraph: how `subject` stands against joint training, setting by setting.

    First against the best system of joint training, whatever its schedule; then against those with a plain name. Where
    joint training is as good, or better, it says so.
    """
    settings: Mapping[str, Mapping[str, Any]] = summary["settings"]
    every = {name: entry for setting in settings.values() for name, entry in setting["systems"].items()}
    jointly = [name for name, entry in every.items() if entry.get("one_adapter")]
    rivals = [r for r in dict.fromkeys(r for s in settings.values() for r in s["differences"]) if r in jointly]
    if not (rivals or jointly) or not any(subject in s["systems"] for s in settings.values()):
        return _best(settings)
    best = {name: _best_of(setting, jointly) for name, setting in settings.items()}
    told = [_against(settings, subject, best, _BEST_RIVAL)] if set(best.values()) - {None, *rivals} else []
    told += [_against(settings, subject, dict.fromkeys(settings, rival), rival) for rival in rivals]
    return [sentence for sentence in told if sentence]


def _best_of(setting: Mapping[str, Any], names: Sequence[str]) -> str | None:
    known = {name: mean for name in names if (mean := mean_of(setting, name)) is not None}
    return max(known, key=lambda name: known[name], default=None)


def _against(
    settings: Mapping[str, Mapping[str, Any]], subject: str, rivals: Mapping[str, str | None], title: str
) -> str:
    """Return a sentence on `subject` against the rival of each setting; `title` stands for all of these."""
    by_tone: dict[Tone, list[str]] = {"bad": [], "open": [], "good": []}
    sizes: dict[str, str] = {}
    for name, setting in settings.items():
        rival = rivals[name]
        found = None if rival is None else _difference(setting, subject, rival)
        if found is not None and rival is not None:
            by_tone[verdict(found, subject, rival)[1]].append(name)
            size = format_estimate(found, "difference")
            sizes[name] = size if rival == title else f"{rival}: {size}"
    return _sentence(subject, title, by_tone, sizes)


def _difference(setting: Mapping[str, Any], subject: str, rival: str) -> Estimate | None:
    """Return subject minus rival, turned round where only the other direction was computed."""
    found = lookup(setting, "differences", rival, subject)
    if found is not None:
        return read_estimate(found)
    turned = lookup(setting, "differences", subject, rival)
    if turned is None:
        return None
    e = read_estimate(turned)
    value, low, high = (None if end is None else -end for end in (e.value, e.high, e.low))
    return Estimate(value, low, high, n=e.n)


def _sentence(subject: str, rival: str, by_tone: Mapping[Tone, Sequence[str]], sizes: Mapping[str, str]) -> str:
    words: dict[Tone, str] = {
        "bad": f"{rival} is better than {subject}",
        "open": f"{subject} and {rival} cannot be told apart",
        "good": f"{subject} is better than {rival}",
    }
    parts = []
    for tone, names in by_tone.items():
        if names:
            where = ", ".join(f"{name} ({sizes[name]})" if name else f"({sizes[name]})" for name in names)
            parts.append(f"{words[tone]}{' at ' if names[0] else ' '}{where}")
    text = "; ".join(parts)
    if not text:
        return ""
    return f"{text if text.startswith(subject) else text[0].upper() + text[1:]}."  # a name stays as it is written


def _best(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    told = []
    for name, setting in settings.items():
        ranked = [s for s in sorted_names(setting) if not is_upper_bound(setting["systems"], s)]
        best = mean_of(setting, ranked[0]) if ranked else None
        if best is not None:
            told.append(f"{f'At {name}, ' if name else ''}{ranked[0]} scores highest: {100 * best:.1f} %.")
    return told
