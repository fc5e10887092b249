"""The result in plain words, computed from the numbers: never more than the intervals allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mocae.report.conclusions import conclude
from mocae.report.judges import judge_rows
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import format_count, format_estimate, format_seconds
from mocae.types import Estimate

__all__ = ["LEAST_HEADROOM", "Finding", "Findings", "find"]

Tone = Literal["good", "bad", "open", "plain"]

LEAST_HEADROOM = 0.05
"""Where the best choice among the experts wins less than this over the best of them alone, routing cannot matter."""

_GOOD_JUDGE = 0.8
"""Balanced accuracy under which a judge is wrong on one answer in five, which hides much of a difference."""

_OWN = "alignx"
_MOST_NAMED = 3
_COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the first screen; `tone` colours its edge."""

    title: str
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report says first.

    Attributes:
        headline: what was found, with interval and number of prompts.
        named: the systems that the headline names, each with what it is.
        front: systems whose answers are worth reading first: the best, its rival, the method of the papers, the base.
        lines: whether to believe it, whether routing can matter, what it cost, what to beware of, what to do next.
        conclusions: section of the page -> a sentence with what it shows; only those with something to show.
    """

    headline: str
    named: tuple[tuple[str, str], ...]
    front: tuple[str, ...]
    lines: tuple[Finding, ...]
    conclusions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Race:
    """Who is ahead: `rival` is the best system of another policy than the best one, `level` all that may be as good."""

    best: str
    rival: str | None
    lead: Estimate
    level: tuple[str, ...]


def find(report: Mapping[str, Any]) -> Findings:
    """Return what the numbers of `report` say in plain words.

    "Best" is the highest mean over the axes among the systems one can run (the oracle is not one). A difference whose
    interval holds zero is called unsettled, whatever its sign.
    """
    systems = report["systems"]
    able = [name for name in sorted_systems(report) if not is_upper_bound(systems, name)]
    ranked = [name for name in able if _mean(report, name).value is not None]
    race = _race(report, ranked) if ranked else None
    lines = [_believe(report, race), _go(report), _cost(report, race), _beware(report, race), _next(report, race)]
    named = () if race is None else dict.fromkeys([race.best, race.rival or race.best, *race.level[:_MOST_NAMED]])
    return Findings(
        _headline(report, race),
        tuple((name, about) for name in named if (about := lookup(systems, name, "about"))),
        () if race is None else tuple(dict.fromkeys([race.best, race.rival or race.best, _OWN, "base"])),
        tuple(line for line in lines if line is not None),
        conclude(report, ranked),
    )


def _mean(report: Mapping[str, Any], system: str) -> Estimate:
    return read_estimate(lookup(report["systems"].get(system), "mean_axis_score"))


def _points(estimate: Estimate) -> str:
    """Return the size of a difference with its interval, signs removed."""
    ends = [abs(end) for end in (estimate.low, estimate.high) if end is not None]
    low, high = sorted(ends) if len(ends) == 2 else (None, None)
    return format_estimate(Estimate(abs(estimate.value or 0.0), low, high), "points")


def _policy(report: Mapping[str, Any], system: str) -> str:
    """Return what a system does in one word; learning from accepted answers as well makes no other policy of it."""
    return str(lookup(report["systems"], system, "policy") or system).removesuffix("_outcomes")


def _race(report: Mapping[str, Any], ranked: list[str]) -> _Race:
    best = ranked[0]
    rivals = [name for name in ranked if _policy(report, name) != _policy(report, best)]
    if not rivals:
        return _Race(best, None, Estimate(None), ())
    level = tuple(name for name in rivals if (low := _lead(report, best, name).low) is not None and low <= 0)
    return _Race(best, rivals[0], _lead(report, best, rivals[0]), level)


def _lead(report: Mapping[str, Any], best: str, other: str) -> Estimate:
    """Return `best` minus `other`, paired, no value where the report has no such comparison."""
    compared = report.get("comparisons") or {}
    if lookup(compared, "lead", "system") == best:
        return read_estimate(lookup(compared, "lead", "over", other))
    if compared.get("against") == other:  # reports of before knew only these
        return read_estimate(lookup(compared, "differences", best))
    return Estimate(None)


def _axes_in_words(report: Mapping[str, Any]) -> str:
    names = axis_names(report)
    if len(names) == 1:
        return f"the one axis ({names[0]})"
    count = _COUNT_WORDS[len(names)] if len(names) < len(_COUNT_WORDS) else str(len(names))
    return f"the mean of the {count} axes"


def _headline(report: Mapping[str, Any], race: _Race | None) -> str:
    if race is None:
        return "No system has a mean over the axes, so this run ranks nothing."
    score = _mean(report, race.best)
    over, prompts = _axes_in_words(report), f"n = {format_count(score.n)} test prompts"
    if race.rival is None:
        alone = "" if len(report["systems"]) == 1 else " Nothing else was measured that it could be compared with."
        return f"{race.best} answers {format_estimate(score)} acceptably, on {over} ({prompts}).{alone}"
    rival = f"{race.rival} ({format_estimate(Estimate(_mean(report, race.rival).value))})"
    names = [name for name in race.level if name != race.rival]
    others = names if len(names) <= _MOST_NAMED else [*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more"]
    more = f" {' and '.join(', '.join(others).rsplit(', ', 1))} may be as good." if others else ""
    if race.rival in race.level:
        return (
            f"No winner: {race.best} ({format_estimate(Estimate(score.value))}) and {rival} cannot be told apart, "
            f"{format_estimate(race.lead, 'difference')} on {over} ({prompts}).{more}{_own(report, race)}"
        )
    opening = f"{race.best} answers best: {format_estimate(score)} acceptably, on {over} ({prompts})"
    if race.lead.value is None:
        return f"{opening}. {rival} comes second; the two were not compared prompt by prompt, so no lead is claimed."
    ahead = f"{_points(race.lead)} ahead of its best rival {rival}"
    if race.lead.low is None:
        ahead += ", with no interval: how sure that is, is not known"
    return f"{opening}, {ahead}.{more}{_own(report, race)}"


def _own(report: Mapping[str, Any], race: _Race) -> str:
    """Return a sentence on how far the method of the papers is behind, "" where it is not."""
    if _OWN in (race.best, race.rival, *race.level) or _mean(report, _OWN).value is None:
        return ""
    behind = _lead(report, race.best, _OWN)
    if behind.value is None or _policy(report, race.best) == _OWN:
        return ""
    return f" {_OWN} is {_points(behind)} behind."


def _learned(report: Mapping[str, Any], system: str) -> bool:
    """Return whether a system learns from the verdicts on calibration prompts."""
    return bool(lookup(report, "updates", system, "verdicts"))


def _believe(report: Mapping[str, Any], race: _Race | None) -> Finding:
    """Return how good the judges are, and how far the sample sizes carry."""
    judges = judge_rows(report)
    doubted = [j.name for j in judges if j.audit is not None and not j.audit.believed]
    open_ones = [j.name for j in judges if not j.exact and j.quality.value is None]
    measured = [j for j in judges if j.quality.value is not None]
    weak = [j for j in measured if (j.quality.value or 0.0) < _GOOD_JUDGE]
    tone: Tone = "bad" if doubted or not judges else "open" if open_ones or weak else "good"
    parts = []
    if not judges:
        parts.append("No judge is named, so nothing says how far to trust the rates")
    elif all(j.exact for j in judges):
        parts.append("Every answer is checked exactly: the judge makes no error")
    if doubted:
        parts.append(f"Not to be believed, for accepting constant answers: {', '.join(doubted)}")
    if measured:
        weakest = min(measured, key=lambda j: j.quality.value or 0.0)
        which = "The judge" if len(judges) == 1 else f"The weakest judge ({weakest.name})"
        parts.append(f"{which} has a balanced accuracy of {weakest.balanced} on {weakest.n} labelled answers")
    if open_ones:
        parts.append(f"Not checked against labelled answers: {', '.join(open_ones)}")
    sizes = {axis: _axis_size(report, race, axis) for axis in axis_names(report)} if race else {}
    if race and all(sizes.values()):
        score, fewest = _mean(report, race.best), min(sizes, key=lambda axis: sizes[axis])
        half = "" if score.low is None or score.high is None else f", a mean is known to ± {_half(score)} points"
        seeds = "; another seed moves it as well" if len(report["systems"]) > 1 else ""
        parts.append(f"With at least {sizes[fewest]} test prompts an axis{half}{seeds}")
        if sizes[fewest] < 50:
            tone = "open" if tone == "good" else tone
    opening = {"good": "Yes.", "open": "With care.", "bad": "No."}[tone]
    return Finding("Believe it?", f"{opening} {'. '.join(parts)}.", tone)


def _axis_size(report: Mapping[str, Any], race: _Race, axis: str) -> int:
    return read_estimate(lookup(report["systems"], race.best, "axis_scores", axis)).n


def _half(estimate: Estimate) -> str:
    return f"{50 * ((estimate.high or 0.0) - (estimate.low or 0.0)):.1f}"


def _headroom(report: Mapping[str, Any]) -> Estimate:
    return read_estimate(lookup(report, "headroom", "headroom"))


def _go(report: Mapping[str, Any]) -> Finding | None:
    """Return whether routing can matter: what the best choice among the experts would win over the best of them."""
    if len(report["systems"]) == 1:
        return None
    title, room = "Can routing matter?", _headroom(report)
    if room.value is None:
        return Finding(title, "Not known: the experts were not judged on an even draw of calibration prompts.", "open")
    oracle, best = (format_estimate(read_estimate(report["headroom"].get(key))) for key in ("oracle", "best"))
    name = report["headroom"].get("best_system")
    text = (
        f"The right expert for each of {room.n} calibration prompts would reach {oracle}, the best one alone "
        f"({name}) {best}: {format_estimate(room, 'points')} to win"
    )
    if room.value < LEAST_HEADROOM:
        return Finding(title, f"No (no-go). {text}. Below 5 points, routing cannot matter here.", "bad")
    if room.low is None or room.low < LEAST_HEADROOM:
        return Finding(title, f"Perhaps. {text}, and the interval reaches below the 5 points it takes.", "open")
    return Finding(title, f"Yes (go). {text}.", "good")


def _cost(report: Mapping[str, Any], race: _Race | None) -> Finding | None:
    """Return what it took: verdicts, seconds to make the systems in front, and seconds to answer."""
    if race is None:
        return None
    parts = []
    if verdicts := lookup(report, "headroom", "n_verdicts"):
        prompts = _headroom(report).n
        parts.append(f"{format_count(verdicts)} judged answers of the experts to {format_count(prompts)} prompts")
    for what, path in (("to make", ("updates", "all")), ("to answer", ("systems", "cost"))):
        named = [race.best, *([race.rival] if race.rival else [])]
        seconds = {name: lookup(report, path[0], name, path[1], "seconds") for name in named}
        told = [f"{name} {format_seconds(value)}" for name, value in seconds.items() if value]
        if told:
            parts.append(f"{what}: {', '.join(told)}")
    text = "; ".join(parts)
    return Finding("What it cost", f"{text[0].upper()}{text[1:]}.") if parts else None


def _beware(report: Mapping[str, Any], race: _Race | None) -> Finding | None:
    """Return what the numbers hide: the world, unlike knowledge of the systems, what was left out."""
    parts = [str(note) for note in report.get("notes") or ()]
    counts = report.get("counts") or {}
    if counts.get("unscored"):
        parts.append(f"{format_count(counts['unscored'])} verdicts could not be read and count for no side")
    if counts.get("skipped"):
        parts.append(f"{format_count(counts['skipped'])} rows of data were skipped")
    if race and race.rival and _learned(report, race.best):
        others = [s for s in report["systems"] if _learned(report, s) and s != race.best]
        if not any(_policy(report, s) != _policy(report, race.best) for s in others):
            parts.append(f"{race.best} learned from verdicts, and no rival that did was measured (knn, joint_outcomes)")
        elif not _learned(report, race.rival):
            parts.append(f"{race.best} learned from verdicts that {race.rival} did not see")
    same = [s for s in report["systems"] if race and _policy(report, s) == _policy(report, race.best)]
    if race and len(same) > 1:
        parts.append(f"{race.best} is the best of {len(same)} of its kind on these very prompts, which flatters it")
    if not parts:
        return None
    text = "; ".join(parts)
    return Finding("Beware", f"{text[0].upper()}{text[1:]}.", "open")


def _next(report: Mapping[str, Any], race: _Race | None) -> Finding | None:
    """Return the one thing to do after reading this."""
    if race is None or race.rival is None:
        return None
    room = _headroom(report)
    judges = judge_rows(report)
    if any(j.audit is not None and not j.audit.believed for j in judges) or not judges:
        text = "Replace the judges that fail before reading any rate: docs/judges.md tells how."
    elif room.value is not None and room.value < LEAST_HEADROOM:
        single = race.best if race.best not in (report.get("routing") or {}) else report["headroom"].get("best_system")
        text = f"Use {single} and no router, or train experts that differ more."
    elif race.rival in race.level:
        text = "Take the cheaper of the two, or tell them apart with more test prompts and seeds (mocae ablate)."
    elif _policy(report, race.best) == _OWN:
        text = "Try it: mocae chat FOLDER --show-routing. Then repeat with other seeds (mocae ablate)."
    else:
        text = f"Use {race.best}: mocae chat FOLDER --system {race.best}. Routing earned nothing over it here."
    return Finding("Do next", text)
