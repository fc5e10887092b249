"""`mocae compare`: two evaluations, prompt by prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mocae.axes import Probe, stored_probe
from mocae.config import declare_probes_of
from mocae.errors import ArtifactError, ConfigError, unknown_name
from mocae.evaluation import Bootstrap, difference, mean_score, read_samples
from mocae.files import read_json
from mocae.metrics import Metric, in_table_order, metric, paired_bootstrap_difference
from mocae.report import check_report
from mocae.types import Estimate, Sample

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of both, and first minus second over the prompts both have scored."""

    name: str
    first: float | None
    second: float | None
    difference: Estimate
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the prompts they share.

    Attributes:
        first, second: what is compared.
        places: where each came from: its system and folder.
        n_shared: prompts both answered.
        n_only_first, n_only_second: prompts only one answered; in no number.
        rows: the numbers.
        notes: what a reader must know.
        judges: of each side, as in `report.json`: quality, verdicts, unscored.
    """

    first: str
    second: str
    places: tuple[str, str]
    n_shared: int
    n_only_first: int
    n_only_second: int
    rows: Sequence[Difference]
    notes: Sequence[str]
    judges: Mapping[str, Sequence[Mapping[str, Any]]]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return asdict(self)


def compare(first: str, second: str, *, seed: int = 0) -> Comparison:
    """Return paired differences, first minus second, with 95 % bootstrap intervals.

    Args:
        first: folder that `mocae eval` or `mocae run` has written; FOLDER:SYSTEM where it holds several systems.
        second: another one, or another system of it.
        seed: of the resampling.

    Raises:
        ArtifactError: a folder holds no finished evaluation, or no prompt is shared.
        ConfigError: a system has to be named, or is not there.
    """
    one, other = _load(first), _load(second)
    (name_a, name_b), a, b = _labels(one, other), one.samples, other.samples
    by_id = {s.answer.example.id: s for s in b}
    pairs = [(s, by_id[s.answer.example.id]) for s in a if s.answer.example.id in by_id]
    if not pairs:
        raise ArtifactError(f"{first} and {second} share no prompt; compare evaluations of the same suite and seed")
    axes = list(dict.fromkeys(s.answer.example.axis for s, _ in pairs))
    boot = Bootstrap(seed=seed)
    mine, theirs = [s for s, _ in pairs], [s for _, s in pairs]
    rows = [_mean("mean of axes", mine, theirs, axes, boot)]
    rows += [_mean(f"{axis} score", mine, theirs, [axis], boot) for axis in axes if len(axes) > 1]
    for axis in axes:
        rows += _numbers(axis, [(x, y) for x, y in pairs if x.answer.example.axis == axis], seed)
    return Comparison(
        name_a,
        name_b,
        (one.origin, other.origin),
        len(pairs),
        len(a) - len(pairs),
        len(b) - len(pairs),
        rows,
        _notes(one, other),
        {f"A, {name_a}": one.report.get("judges") or (), f"B, {name_b}": other.report.get("judges") or ()},
    )


def _mean(
    name: str, mine: Sequence[Sample], theirs: Sequence[Sample], axes: Sequence[str], boot: Bootstrap
) -> Difference:
    scored = [
        (x, y) for x, y in zip(mine, theirs, strict=True) if x.acceptable is not None and y.acceptable is not None
    ]
    values = [mean_score([pair[side] for pair in scored], axes, boot=Bootstrap(1)).value for side in (0, 1)]
    return Difference(name, values[0], values[1], difference(mine, theirs, axes, boot=boot), True)


def _numbers(axis: str, pairs: Sequence[tuple[Sample, Sample]], seed: int) -> list[Difference]:
    """Return one row a metric of the axis, then one a judgement that no metric is about, over pairs both scored."""
    readings: dict[str, Metric] = {}
    values: dict[str, list[tuple[float, float, str]]] = {}
    for x, y in pairs:
        for title, read in _readings(stored_probe(x.answer.example.probe), x.verdicts.keys() & y.verdicts.keys()):
            one, other = read.value(x), read.value(y)
            if one is not None and other is not None:
                readings[title] = read
                values.setdefault(title, []).append((one, other, x.answer.example.group))
    order = in_table_order(read.name for read in readings.values())
    rows = []
    for title in sorted(readings, key=lambda title: (order.index(readings[title].name), title)):
        first, second, groups = zip(*values[title], strict=True)
        whole = [group or f"row {i}" for i, group in enumerate(groups)]
        estimate = paired_bootstrap_difference(first, second, groups=whole, seed=seed)
        one, other = (sum(side) / len(side) for side in (first, second))
        rows.append(Difference(f"{axis}{title}", one, other, estimate, readings[title].higher_is_better))
    return rows


def _readings(probe: Probe, judgements: Collection[str]) -> list[tuple[str, Metric]]:
    """Return what can be read off one answer: the probe's metrics, then the judgements that none of them is about."""
    metrics = [m for name in probe.metrics if (m := metric(name)).judgement]
    covered = {m.judgement for m in metrics}
    covered |= set(probe.wants) if "acceptable" in covered else set()
    rest = sorted(set(judgements) - covered)
    return [
        *((f": {m.label}", m) for m in metrics),
        *(
            (
                f", {probe.name}: {name}",
                Metric(name=name, label=name, text="", judgement=name, higher_is_better=probe.wants.get(name)),
            )
            for name in rest
        ),
    ]


def _notes(one: _Side, other: _Side) -> list[str]:
    notes = []
    if one.place == other.place:
        notes.append(f"A and B are the same: {one.given}; every difference is 0")
    suites = [_suite(side.report) for side in (one, other)]
    if suites[0] != suites[1]:
        notes.append(f"different suites ({suites[0]}, {suites[1]}): only shared prompts are compared")
    judges = [sorted(judge["name"] for judge in side.report.get("judges") or ()) for side in (one, other)]
    if judges[0] != judges[1]:
        notes.append("different judges: a difference may be theirs, not the systems'")
    return notes


def _suite(report: Mapping[str, Any]) -> str:
    suite = report["recipe"].get("suite") or {}
    return f"{suite.get('name')} {suite.get('version')}" if suite else str(report["recipe"]["name"])


@dataclass(frozen=True, slots=True)
class _Side:
    """One side: as it was given, its folder and system, what it is called, its answers and its report."""

    given: str
    place: tuple[Path, str]
    label: str
    samples: Sequence[Sample]
    report: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """Return which answers these are, for a reader."""
        return f"answers of {self.place[1]} in {self.given.removesuffix(f':{self.place[1]}')}"


def _labels(one: _Side, other: _Side) -> tuple[str, str]:
    """Return two names that differ: those of folders or systems, else what was given, else with their letters."""
    for names in ((one.label, other.label), (one.given, other.given)):
        if names[0] != names[1]:
            return names
    return f"{one.label} (A)", f"{other.label} (B)"


def _load(text: str) -> _Side:
    folder, system = Path(text), None
    if not folder.is_dir() and ":" in text:
        place, _, system = text.partition(":")
        folder = Path(place)
    try:
        report = read_json(folder / "report.json")
        check_report(report)
        declare_probes_of(report)
        samples = list(read_samples(folder / "samples.jsonl"))
    except ArtifactError as error:
        raise ArtifactError(
            f"{folder}: no finished evaluation ({error}); give the --out folder of `mocae eval` or `mocae run`"
        ) from error
    names = list(report["systems"])
    if system is None and len(names) > 1:
        raise ConfigError(f"{folder}: holds {len(names)} systems; name one as {folder}:{names[0]}")
    chosen = system or names[0]
    if chosen not in names:
        raise ConfigError(f"{folder}: {unknown_name('system', chosen, names)}")
    mine = [s for s in samples if s.system == chosen]
    twice = next((name for name, n in Counter(s.answer.example.id for s in mine).items() if n > 1), None)
    if twice is not None:
        raise ArtifactError(f"{folder}/samples.jsonl: {chosen!r} answers prompt {twice} more than once; evaluate again")
    return _Side(text, (folder.resolve(), chosen), chosen if system else folder.name, mine, report)
