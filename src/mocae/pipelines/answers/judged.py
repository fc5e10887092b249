"""`mocae judge run`: verdicts on a file of answers, written beside them, with rates and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mocae.axes import PROBES, probe
from mocae.config import JudgeConfig
from mocae.data import OnBadRow, read_source
from mocae.errors import ConfigError, DataError, unknown_name
from mocae.evaluation import AnswerLog, kept_verdicts
from mocae.files import digest, write_whole
from mocae.judges import JUDGES, Judge, sayings
from mocae.outputs import writing
from mocae.pipelines.answers.rates import agreement, rates
from mocae.pipelines.answers.rows import AnswerRows, Given, read_answers, repeated
from mocae.pipelines.build import parse_named
from mocae.pipelines.evaluate import with_cache
from mocae.pipelines.suite import Suite, load_suite, read_suite, suite_names
from mocae.pipelines.summary import SCHEMA, RunResult, write_result
from mocae.pipelines.verdicts import judge_entry, sample_notes
from mocae.progress import say, visible
from mocae.report import judged_page
from mocae.stages.judging import audit_all, build_judges, judge_key
from mocae.stages.store import Store, key_of
from mocae.types import Answer, Example, Sample, Verdict, judgement_of, said_by

__all__ = ["Asked", "judge_answers_of"]

_FILES = ("report.html", "report.json", "samples.jsonl")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who judges which answers.

    Attributes:
        judges: names of judges, folders of saved ones, `name:{"option": value}`, and at most one suite, whose prompts
            say what is wanted and whose judges are asked.
        settings: "key=value" for the suite.
        columns: name -> column of the file, see `read_answers`.
        where: filters of rows.
        kind_of_prompt: probe of all prompts; None: what the suite, `prompts` or the rows say.
        prompts: a file with the prompts and what a judge needs of them.
        source: what reads it, `name` or `name:{"option": value}`.
        on_bad_row: whether a row that cannot be used stops the reading or is counted and left out.
        seed: of judges that learn and of intervals.
    """

    judges: Sequence[str]
    settings: Sequence[str] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Sequence[str] = ()
    kind_of_prompt: str | None = None
    prompts: Path | None = None
    source: str = "examples"
    on_bad_row: OnBadRow = "error"
    seed: int = 0


def judge_answers_of(path: Path, asked: Asked, *, out: Path, progress: bool = True) -> RunResult:
    """Return the report of verdicts on a file of answers. What a judge has said about an answer is not asked again.

    Every judge is asked about every answer, so that two that give one judgement can be compared; what an answer is
    accepted by is the first of them. A judge that learns sees no prompt of the file.

    Args:
        path: prompts and responses.
        asked: who judges, and how the file is read.
        out: folder of `verdicts.jsonl` (only ever appended), `samples.jsonl`, `report.json` and `report.html`.
        progress: show progress on stderr.

    Raises:
        ConfigError, PluginError: a judge, suite, column or option is wrong.
        DataError: the file cannot be used, or no judge has anything to say about it.
        ArtifactError: `out` holds something else, or a judge has learned from a prompt of the file.
        JudgeError: a judge cannot be used at all; the same call goes on.
    """
    configs, suite = _judges_and_suite(asked)
    store = Store(out, kind="judge run", files=_FILES)
    with visible(progress), store.locked():
        rows = read_answers(
            path,
            columns=asked.columns,
            where=asked.where,
            known=None if asked.kind_of_prompt else _known(asked, suite),
            kind_of_prompt=asked.kind_of_prompt,
            on_bad_row=asked.on_bad_row,
        )
        say(f"{path}: {len(rows.answers)} answers; {', '.join(f'{r} from {c!r}' for r, c in rows.columns.items())}")
        excluded = sorted({given.answer.example.id for given in rows.answers})
        data_root = suite.data_root if suite is not None else None
        configs = [JudgeConfig.model_validate(with_cache(config.model_dump(), out)) for config in configs]
        judges = build_judges(configs, [excluded] * len(configs), data_root=data_root, seed=asked.seed)
        panel = [
            _Asked(
                judge,
                label,
                judge_key(config, data_root=data_root, seed=asked.seed, excluded=excluded),
                _stand_in(config, judge, data_root),
            )
            for config, judge, label in zip(configs, judges, _labels(judges), strict=True)
        ]
        samples = _judged(rows.answers, panel, AnswerLog(out))
        report = _report(path, asked, suite, rows, samples, panel)
        page = judged_page(report, samples)
        with writing(out, "judge run", _FILES):
            result = write_result(out, report, samples)
            write_whole(result.html_path, page)
    return result


def _judges_and_suite(asked: Asked) -> tuple[list[JudgeConfig], Suite | None]:
    """Return the judges in order, and the suite. A suite's name comes before a judge's, a judge's before a folder's."""
    configs: list[JudgeConfig] = []
    suite: Suite | None = None
    for text in asked.judges:
        name = text.partition(":")[0]
        if text in suite_names() or text.endswith((".yaml", ".yml")):
            if suite is not None:
                raise ConfigError(f"judge run: two suites, {suite.name!r} and {text!r}; give one at a time")
            suite = load_suite(text, asked.settings)
            configs += suite.judges
            say(f"{text}: suite {suite.name} {suite.version}, judges {', '.join(c.judge for c in suite.judges)}")
        elif name in JUDGES:
            judge, options = parse_named(text, what="judge run")
            configs.append(JudgeConfig(judge=judge, options=options))
        elif (Path(text) / "judge.json").is_file():
            from mocae.judges.learned import read_judge  # imports what only judges that learn need

            kind = read_judge(Path(text)).judge.partition(":")[0]  # one of your own labels is "classifier:label"
            configs.append(JudgeConfig(judge=kind, options={"saved": text}))
        else:
            raise ConfigError(
                f"judge run: {unknown_name('judge or suite', name, {*JUDGES, *suite_names()})} A folder of "
                "`mocae judge train` and a suite file ending in .yaml work too"
            )
    if asked.settings and suite is None:
        raise ConfigError(f"judge run: --set {asked.settings[0]} is for a suite, and none is named")
    return configs, suite


def _known(asked: Asked, suite: Suite | None) -> dict[str, Example] | None:
    """Return the prompts by identity that say of themselves what is wanted of an answer; None where nobody does."""
    if asked.prompts is not None:
        name, options = parse_named(asked.source, what="--source")
        read = read_source(name, asked.prompts, axis="answers", on_bad_row=asked.on_bad_row, options=options)
        return {example.id: example for example in read.examples}
    return None if suite is None else {row.id: row for row in read_suite(suite, seed=asked.seed).tests}


def _labels(judges: Sequence[Judge]) -> list[str]:
    """Return what each judge is called: its name, with a number where one is there twice."""
    counts: Counter[str] = Counter()
    labels = []
    for judge in judges:
        counts[judge.name] += 1
        labels.append(judge.name if counts[judge.name] == 1 else f"{judge.name} ({counts[judge.name]})")
    return labels


def _judged(rows: Sequence[Given], panel: Sequence[_Asked], log: AnswerLog) -> list[Sample]:
    held: list[dict[str, Verdict]] = [{} for _ in rows]
    for one in panel:
        shown = [one.shown(given.answer) for given in rows]
        ids = [_identity(answer) for answer in shown]
        by_id = dict(zip(ids, shown, strict=True))
        kept = kept_verdicts(one.judge, by_id, system=rows[0].system, log=log, key=one.key)
        for verdicts, identity in zip(held, ids, strict=True):
            for name, verdict in kept[identity].items():
                verdicts[said_by(name, one.label) if name in verdicts else name] = replace(verdict, judge=one.label)
    if not any(held):
        kinds = ", ".join(sorted({given.answer.example.probe for given in rows}))
        names = ", ".join(one.label for one in panel)
        raise DataError(
            f"judge run: {names}: no verdict on any of {len(rows)} answers; prompts are of kind {kinds}. "
            "Name judges for that kind, or say with --probe what kind they are"
        )
    return [
        Sample(given.system, given.answer, verdicts, _accepted(given.answer.example, verdicts))
        for given, verdicts in zip(rows, held, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A judge, what it is called, its key in the log, and the kind that prompts of untold kind have for it."""

    judge: Judge
    label: str
    key: str
    stand_in: str

    def shown(self, answer: Answer) -> Answer:
        """Return an answer as the judge is asked about it."""
        if answer.example.probe in PROBES:
            return answer
        return replace(answer, example=replace(answer.example, probe=self.stand_in))


def _stand_in(config: JudgeConfig, judge: Judge, data_root: Path | None) -> str:
    """Return the first kind of prompt that a judge has something to say of, best one that wants what it says."""
    says = sayings(config.judge, config.options, data_root=data_root)
    judged = [name for name in PROBES if says is None or says(Example("", "", name))]
    wanted = [name for name in judged if PROBES[name].wants.keys() & set(judge.judgements)]
    return next(iter(wanted or judged), "task")


def _identity(answer: Answer) -> str:
    example = answer.example
    return key_of({"prompt": example.prompt, "text": answer.text, "probe": example.probe, "facts": dict(example.facts)})


def _accepted(example: Example, verdicts: Mapping[str, Verdict]) -> bool | None:
    if example.probe not in PROBES:
        return None
    first: dict[str, Verdict] = {}
    for name, verdict in verdicts.items():
        judgement = judgement_of(name)
        if judgement not in first or first[judgement].score is None:
            first[judgement] = verdict
    return probe(example.probe).accepts(first)


def _report(
    path: Path,
    asked: Asked,
    suite: Suite | None,
    rows: AnswerRows,
    samples: Sequence[Sample],
    panel: Sequence[_Asked],
) -> dict[str, Any]:
    systems = dict.fromkeys(sample.system for sample in samples)
    tests = {given.answer.example.id: given.answer for given in rows.answers}
    audited = [audit_all([one.judge], [one.shown(answer).example for answer in tests.values()]) for one in panel]
    kinds = {sample.answer.example.kind for sample in samples} - {""}
    again = repeated(rows.answers)
    return {
        "schema": SCHEMA,
        "recipe": {
            "name": f"{path.name}, judged",
            "seed": asked.seed,
            "base": {"model": ", ".join(systems)},
            "axes": [{"name": axis} for axis in dict.fromkeys(s.answer.example.axis for s in samples)],
            "suite": None if suite is None else {"name": suite.name, "version": suite.version},
        },
        "answers": {"file": path.name, "sha256": digest(path), "columns": rows.columns},
        "systems": {system: {} for system in systems},
        "rates": rates(samples, by=lambda _: "", seed=asked.seed),
        "kinds": rates(samples, by=lambda s: s.answer.example.kind or "none", seed=asked.seed) if kinds else [],
        "agreement": agreement(samples),
        "judges": [
            judge_entry(one.judge, samples, label=one.label) | {"audit": audit.audits[0]}
            for one, audit in zip(panel, audited, strict=True)
        ],
        "counts": {
            "answers": len(samples),
            "silent": rows.n_silent,
            "skipped": rows.n_skipped,
            "unknown": rows.n_unknown,
            "repeated": again,
            "unscored": sum(v.score is None for s in samples for v in s.verdicts.values()),
        },
        "notes": [
            *_notes(rows, samples, again),
            *(note for audit in audited for note in audit.notes),
            *sample_notes(samples),
        ],
    }


def _notes(rows: AnswerRows, samples: Sequence[Sample], again: int) -> list[str]:
    told = (
        (rows.n_silent, "rows have no response and are in no number"),
        (rows.n_skipped, "rows could not be used and are in no number"),
        (rows.n_unknown, "rows have a prompt that is not among those asked and are in no number"),
        (again, "answers are to a prompt that the same system had answered before; each counts"),
        (sum(not s.answer.text for s in samples), "answers are empty"),
        (sum(not s.verdicts for s in samples), "answers got no verdict: no judge is for prompts of their kind"),
        (
            sum(s.answer.example.probe not in PROBES for s in samples),
            "answers are to prompts of untold kind: rates are what judges say, and no answer is called acceptable",
        ),
    )
    return [f"{n} {text}" for n, text in told if n]
