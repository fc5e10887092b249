"""The result in plain words, computed from the numbers: never more than the intervals allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mocae.report.conclusions import LEAST_HEADROOM, conclude
from mocae.report.judges import judge_rows
from mocae.report.schema import axis_names, is_upper_bound, lookup, read_estimate, sorted_systems
from mocae.report.tables import format_count, format_estimate, format_seconds
from mocae.types import Estimate

__all__ = ["Finding", "Findings", "find"]

Tone = Literal["good", "bad", "open", "plain"]

_GOOD_JUDGE = 0.8
"""Balanced accuracy under which a judge is wrong on one answer in five, which hides much of a difference."""

_NOTE = 100
"""Letters of a note that stands in the first lines; a longer one stands beside the systems alone."""

_FEW = 50
"""Test prompts of an axis under which its score says little."""

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
        lines: what it cost, whether to believe it and what to beware of, what to do next.
        conclusions: section of the page -> a sentence with what it shows; only those with something to show.
    """

    headline: str
    named: tuple[tuple[str, str], ...]
    front: tuple[str, ...]
    lines: tuple[Finding, ...]
    conclusions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Race:
    """Who is ahead.

    Attributes:
        best: the highest mean.
        rival: the best system of another policy.
        lead: of `best` over `rival`, paired.
        level: systems of other policies that may be as good as `best`.
        peer: the best of another policy that learned from the same verdicts; None: none did, or `best` did not.
    """

    best: str
    rival: str | None
    lead: Estimate
    level: tuple[str, ...]
    peer: str | None = None


def find(report: Mapping[str, Any]) -> Findings:
    """Return what the numbers of `report` say in plain words.

    "Best" is the highest mean over the axes among the systems one can run (the oracle is not one). A difference whose
    interval holds zero is called unsettled, whatever its sign.
    """
    systems = report["systems"]
    able = [name for name in sorted_systems(report) if not is_upper_bound(systems, name)]
    ranked = [name for name in able if _mean(report, name).value is not None]
    race = _race(report, ranked) if ranked else None
    lines = [_cost(report, race), _beware(report, race), _next(report, race)]
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
    peers = [name for name in rivals if _learned(report, name)] if _learned(report, best) else []
    return _Race(best, rivals[0], _lead(report, best, rivals[0]), level, next(iter(peers), None))


def _lead(report: Mapping[str, Any], best: str, other: str) -> Estimate:
    """Return `best` minus `other`, paired, no value where the report has no such comparison."""
    compared = report.get("comparisons") or {}
    if lookup(compared, "lead", "system") == best:
        return read_estimate(lookup(compared, "lead", "over", other))
    if compared.get("against") == other:  # reports of before knew only these
        return read_estimate(lookup(compared, "differences", best))
    return Estimate(None)


def _called(system: str) -> str:
    """Return the name of a system, in quotes where it would read as words of the sentence."""
    return f"“{system}”" if " " in system else system


def _axes_in_words(report: Mapping[str, Any]) -> str:
    names = axis_names(report)
    if len(names) == 1:
        return f"the one axis, {names[0]}"
    count = _COUNT_WORDS[len(names)] if len(names) < len(_COUNT_WORDS) else str(len(names))
    return f"mean of {count} axes"


def _headline(report: Mapping[str, Any], race: _Race | None) -> str:
    if race is None:
        return "No system has a mean over the axes, so this run ranks nothing."
    score = _mean(report, race.best)
    over = f"{_axes_in_words(report)}, n = {format_count(score.n)} test prompts"
    if race.best != "base" != race.rival and (base := _mean(report, "base").value) is not None:
        over += f"; the base model: {format_estimate(Estimate(base))}"
    best = _called(race.best)
    if race.rival is None:
        alone = "" if len(report["systems"]) == 1 else " Nothing else was measured that it could be compared with."
        return f"{best} answers {format_estimate(score)} acceptably ({over}).{alone}"
    rival = f"{_called(race.rival)} ({format_estimate(Estimate(_mean(report, race.rival).value))})"
    names = [_called(name) for name in race.level if name != race.rival]
    others = names if len(names) <= _MOST_NAMED else [*names[: _MOST_NAMED - 1], f"{len(names) - _MOST_NAMED + 1} more"]
    more = f" {' and '.join(', '.join(others).rsplit(', ', 1))} may be as good." if others else ""
    fair = _fairness(report, race)
    if race.rival in race.level:
        return (
            f"No winner: {best} ({format_estimate(Estimate(score.value))} acceptable) and {rival} cannot be told "
            f"apart, {format_estimate(race.lead, 'difference')} ({over}){fair}.{more}{_own(report, race)}"
        )
    opening = f"{best} answers best: {format_estimate(score)} acceptably ({over})"
    if race.lead.value is None:
        return f"{opening}. {rival} comes second; the two were not compared prompt by prompt, so no lead is claimed."
    ahead = f"{_points(race.lead)} ahead of its best rival {rival}"
    if race.lead.low is None:
        ahead += ", with no interval: how sure that is, is not known"
    return f"{opening}, {ahead}{fair}.{more}{_own(report, race)}"


def _fairness(report: Mapping[str, Any], race: _Race) -> str:
    """Return how the best and its rival compare in what they learned from: who is ahead may have seen more."""
    learned = _learned(report, race.best), _learned(report, race.rival or "")
    if learned[0] == learned[1]:
        return "; both learned from the same verdicts" if learned[0] else ""
    if not learned[0]:
        return f", which learned from verdicts that {_called(race.best)} did not see"
    if race.peer is None:
        return ", which saw no verdicts; no rival that did was measured"
    if race.peer in race.level:
        return f", which saw no verdicts; {_called(race.peer)} saw the same and may be as good"
    lead = _lead(report, race.best, race.peer)
    size = f"{_points(lead)} behind" if lead.value is not None else "behind"
    return f", which saw no verdicts; {_called(race.peer)}, the best that saw the same, is {size}"


def _own(report: Mapping[str, Any], race: _Race) -> str:
    """Return a sentence on how far the method of the papers is behind, "" where it is not."""
    if _OWN in (race.best, race.rival, *race.level) or _mean(report, _OWN).value is None:
        return ""
    behind = _lead(report, race.best, _OWN)
    if behind.value is None or _policy(report, race.best) == _OWN:
        return ""
    return f" {_OWN} is {_points(behind)} behind."


def _learned(report: Mapping[str, Any], system: str) -> bool:
    """Return whether the verdicts on calibration prompts shape what a system answers."""
    recorded = lookup(report["systems"], system, "uses_verdicts")
    return bool(lookup(report, "updates", system, "verdicts") if recorded is None else recorded)


def _judged(report: Mapping[str, Any]) -> tuple[Tone, list[str]]:
    """Return how far the judges can be trusted: "bad", "open" or "good", and why."""
    judges = judge_rows(report)
    if not judges:
        return "bad", ["no judge is named, so nothing says how far to trust the rates"]
    doubted = [j.name for j in judges if j.audit is not None and not j.audit.believed]
    open_ones = [j.name for j in judges if not j.exact and j.quality.value is None]
    measured = [j for j in judges if j.quality.value is not None]
    parts = ["every answer is checked exactly"] if all(j.exact for j in judges) else []
    if doubted:
        parts.append(f"a judge that accepts constant answers: {', '.join(doubted)}")
    if measured:
        weakest = min(measured, key=lambda j: j.quality.value or 0.0)
        which = "the judge" if len(judges) == 1 else f"the weakest judge ({weakest.name})"
        parts.append(f"{which} has a balanced accuracy of {weakest.balanced} on {weakest.n} labelled answers")
    if open_ones:
        parts.append(f"not checked against labelled answers: {', '.join(open_ones)}")
    weak = any((j.quality.value or 0.0) < _GOOD_JUDGE for j in measured)
    return "bad" if doubted else "open" if open_ones or weak else "good", parts


def _axis_size(report: Mapping[str, Any], race: _Race, axis: str) -> int:
    return read_estimate(lookup(report["systems"], race.best, "axis_scores", axis)).n


def _half(estimate: Estimate) -> str:
    return f"{50 * ((estimate.high or 0.0) - (estimate.low or 0.0)):.1f}"


def _sizes(report: Mapping[str, Any], race: _Race) -> tuple[int, str]:
    """Return the fewest test prompts of an axis, and in words how sure a mean over that many is; 0 where unknown."""
    sizes = [_axis_size(report, race, axis) for axis in axis_names(report)]
    if not all(sizes):
        return 0, ""
    score = _mean(report, race.best)
    half = "" if score.low is None or score.high is None else f", which knows its mean to ± {_half(score)} points"
    return min(sizes), f"one seed, at least {min(sizes)} test prompts an axis{half}"


def _cost(report: Mapping[str, Any], race: _Race | None) -> Finding | None:
    """Return what it took: verdicts, and seconds to make the systems in front."""
    if race is None:
        return None
    parts = []
    if verdicts := lookup(report, "headroom", "n_verdicts"):
        prompts = read_estimate(lookup(report, "headroom", "headroom")).n
        on = f"the experts' answers to {format_count(prompts)} prompts"
        parts.append(f"{format_count(verdicts)} verdicts (a judge's yes or no) on {on}")
    if made := [f"{_called(name)} {format_seconds(value)}" for name, value in _seconds(report, race).items()]:
        parts.append(f"to make, experts and all: {', '.join(made)}")
    text = "; ".join(parts)
    return Finding("What it cost", f"{text}.") if parts else None


def _seconds(report: Mapping[str, Any], race: _Race) -> dict[str, float]:
    """Return what making the systems in front took, with all they are made from; only those where it is known."""
    named = dict.fromkeys([race.best, race.rival or race.best])
    seconds = {name: lookup(report, "updates", name, "all", "seconds") for name in named}
    return {name: value for name, value in seconds.items() if value}


def _beware(report: Mapping[str, Any], race: _Race | None) -> Finding:
    """Return how far to believe the numbers: the world, the judges, sample sizes, and who learned from what."""
    tone, judged = _judged(report)
    notes = [str(note) for note in report.get("notes") or ()]
    short = [note for note in notes if len(note) <= _NOTE]
    if more := len(notes) - len(short):
        short.append(f"{more} longer {'note' if more == 1 else 'notes'} below, beside the rates of all systems")
    fewest, sizes = _sizes(report, race) if race else (0, "")
    counts = report.get("counts") or {}
    parts = [*short, *judged, *([sizes] if sizes else [])]
    if race:
        parts += _unlike(report, race)
    if counts.get("unscored"):
        parts.append(f"{format_count(counts['unscored'])} verdicts could not be read and count for no side")
    if counts.get("skipped"):
        parts.append(f"{format_count(counts['skipped'])} rows of data were skipped")
    if tone == "good" and (notes or fewest < _FEW):
        tone = "open"
    opening = {"good": "Yes", "open": "With care", "bad": "No"}[tone]
    return Finding("Believe it?", f"{opening}: {'; '.join(parts)}.", tone)


def _unlike(report: Mapping[str, Any], race: _Race) -> list[str]:
    """Return what made the race uneven: verdicts that only some saw, and several tries of one kind."""
    policy = lookup(report["systems"], race.best, "policy") or race.best
    learned = [s for s in report["systems"] if _learned(report, s) and not is_upper_bound(report["systems"], s)]
    parts = []
    if learned:
        names = (
            [_called(name) for name in learned]
            if len(learned) <= _MOST_NAMED
            else [f"{len(learned)} of {len(report['systems'])} systems"]
        )
        who = " and ".join(", ".join(names).rsplit(", ", 1))
        parts.append(f"the judged prompts that {who} learned from are an edge over all others")
    if (same := sum(lookup(entry, "policy") == policy for entry in report["systems"].values())) > 1:
        parts.append(f"{_called(race.best)} is the best of {same} of its kind on these very prompts, which flatters it")
    return parts


def _next(report: Mapping[str, Any], race: _Race | None) -> Finding | None:
    """Return the one thing to do after reading this."""
    if race is None or race.rival is None:
        return None
    room = read_estimate(lookup(report, "headroom", "headroom"))
    if _judged(report)[0] == "bad":
        text = "Replace the judges that fail before reading any rate: docs/judges.md tells how."
    elif room.value is not None and room.value < LEAST_HEADROOM:
        single = race.best if race.best not in (report.get("routing") or {}) else report["headroom"].get("best_system")
        text = f"Use {single} and no router, or train experts that differ more."
    elif race.rival in race.level:
        cheaper = min(_seconds(report, race).items(), key=lambda item: item[1], default=None)
        either = f"{_called(cheaper[0])}, the cheaper to make" if cheaper else "either"
        text = (
            f"Take {either}, or tell them apart with more test prompts and seeds (mocae ablate). Try it: mocae chat, "
            "with the folder of this page."
        )
    elif _policy(report, race.best) == _OWN:
        text = "Try it: mocae chat FOLDER --show-routing. Then repeat with other seeds (mocae ablate)."
    else:
        text = (
            f"Use {_called(race.best)}: mocae chat FOLDER --system {race.best!r}. Routing earned nothing over it here."
        )
    return Finding("Do next", text)
