"""`mocae eval`: one system, one suite, one folder with every answer, verdict and number."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from mocae.errors import ArtifactError, JudgeError
from mocae.evaluation import Bootstrap, judge_answers, measure_system, probes_by_axis, write_samples
from mocae.files import Record, read_record, write_whole
from mocae.judges import Judge, build_judge
from mocae.judges.endpoint import EndpointJudge, Usage
from mocae.metrics import estimate_rate
from mocae.pipelines.eval_log import EvalLog
from mocae.pipelines.suite import Suite, SuiteRows, read_suite
from mocae.pipelines.targets import Target
from mocae.progress import bar, say, visible
from mocae.report import html_page
from mocae.stages.judging import audit_all
from mocae.stages.store import Store, key_of
from mocae.types import Answer, Estimate, Example, Sample, Verdict

__all__ = ["EvalResult", "evaluate"]

SCHEMA = 1
_CHUNK = 32
"""Answers a judge is asked about at once; what a kill can cost a judge that keeps no cache of its own."""
_MC = ("mc1", "mc2")


@dataclass(frozen=True, slots=True)
class EvalResult:
    """What an evaluation made: the report, and where report and page lie."""

    report: dict[str, Any]
    report_path: Path
    html_path: Path


def evaluate(
    target: Target,
    suite: Suite,
    *,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> EvalResult:
    """Evaluate one system on one suite and return the report. What is in `out` already is not asked again.

    Args:
        target: what answers.
        suite: what is asked and who judges.
        out: folder of answers, verdicts, `samples.jsonl`, `report.json` and `report.html`; made if need be.
        limit: most prompts of each source.
        seed: of the draw of prompts, of sampling, of judges that learn and of intervals.
        progress: show progress on stderr.

    Raises:
        ArtifactError: the folder holds another evaluation, or another process writes it.
        JudgeError: a judge or the system's server cannot be used; the same call goes on.
        DataError, ConfigError, PluginError: see `mocae.pipelines.suite.read_suite` and `mocae.judges.build_judge`.
    """
    store = Store(out)
    with visible(progress), store.locked():
        known = target.seen.prompts if target.seen is not None else frozenset[str]()
        rows = read_suite(suite, limit=limit, seed=seed, without=known)
        _claim(store.root, target, suite, limit, seed, rows)
        log = EvalLog(store.root)
        answers = _answer(target, suite, rows.tests, log, seed)
        judges = _judges(suite, rows, store.root, seed)
        samples = judge_answers(target.label, answers, [_Logged(judge, key, log) for key, judge in judges.items()])
        choices = _choices(target, suite, rows.choices, store.root)
        report = _report(target, suite, rows, samples, list(judges.values()), choices, log, seed=seed, limit=limit)
        page = html_page(report)
        partial = store.root / ".samples.partial"
        write_samples(samples, partial)
        partial.replace(store.root / "samples.jsonl")
        write_whole(store.root / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_whole(store.root / "report.html", page)
    return EvalResult(report, store.root / "report.json", store.root / "report.html")


class _Claim(Record):
    """`eval.json`: what a folder is for."""

    parts: dict[str, JsonValue]


class _Choices(Record):
    """`choices.json`: scores of the questions in their order."""

    mc1: list[float | None]
    mc2: list[float | None]


def _claim(root: Path, target: Target, suite: Suite, limit: int | None, seed: int, rows: SuiteRows) -> None:
    """Write what the folder is for, or refuse one that is for something else."""
    asked = [[row.id, row.axis, row.probe] for row in (*rows.tests, *rows.choices)]
    parts = {"system": target.identity, "suite": suite.hash, "seed": seed, "prompts": key_of({"asked": asked})}
    path = root / "eval.json"
    if path.is_file():
        held = read_record(path, _Claim, remedy="give another --out").parts
        changed = [name for name in parts if held.get(name) != parts[name]]
        if changed:
            raise ArtifactError(
                f"{root}: holds an evaluation with another {' and '.join(changed)}; the same command goes on with it, "
                "another one needs another --out"
            )
        return
    told = {"schema": SCHEMA, "suite": f"{suite.name} {suite.version}", "limit": limit, "parts": parts}
    write_whole(path, json.dumps(told, indent=1) + "\n")


def _answer(target: Target, suite: Suite, tests: Sequence[Example], log: EvalLog, seed: int) -> list[Answer]:
    missing = [example for example in tests if log.answer(example) is None]
    if missing:
        say(f"{target.label}: {len(missing)} of {len(tests)} prompts to answer")
        started = time.perf_counter()
        for batch in target.answers(missing, suite.generation, seed=seed):
            now = time.perf_counter()
            if batch:
                log.add_answers(batch, now - started)
            started = now
    answers = [answer for answer in map(log.answer, tests) if answer is not None]
    if not answers:
        why = f" (last: {target.problem})" if target.problem else ""
        raise JudgeError(f"{target.label}: none of {len(tests)} prompts was answered{why}; the same command asks again")
    return answers


def _judges(suite: Suite, rows: SuiteRows, root: Path, seed: int) -> dict[str, Judge]:
    """Return the judges by the key of their verdicts; none learns from a prompt that is tested."""
    excluded = sorted({row.id for row in (*rows.tests, *rows.choices)})
    judges: dict[str, Judge] = {}
    for config in suite.judges:
        say(f"judge {config.judge}")
        options = _with_cache({"judge": config.judge, "options": dict(config.options)}, root)["options"]
        key = key_of({"judge": config.model_dump()})[:16]
        judges[key] = build_judge(config.judge, options, data_root=suite.data_root, seed=seed, exclude_prompts=excluded)
    return judges


def _with_cache(entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return a judge and its options, replies of endpoints kept in the folder unless the options say where."""
    options = dict(entry.get("options") or {})
    if entry["judge"] == "openai" or (entry["judge"] == "guard" and options.get("base_url")):
        options.setdefault("cache", str(root.resolve() / "replies.jsonl"))
    if entry["judge"] == "vote":
        options["judges"] = [_with_cache(one, root) for one in options.get("judges") or ()]
    return {"judge": entry["judge"], "options": options}


class _Logged:
    """A judge whose verdicts are kept in the log, under `key`; only answers it has not judged are asked about."""

    def __init__(self, judge: Judge, key: str, log: EvalLog) -> None:
        self._judge, self._key, self._log = judge, key, log
        self.name, self.judgements, self.quality = judge.name, judge.judgements, judge.quality

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdicts on each answer."""
        missing = [answer for answer in answers if self._log.verdicts(self._key, answer.example) is None]
        with bar(len(missing), f"verdicts {self.name}") as shown:
            for start in range(0, len(missing), _CHUNK):
                some = missing[start : start + _CHUNK]
                said = self._judge.judge(some)
                if len(said) != len(some):
                    raise JudgeError(f"judge {self.name!r} gave {len(said)} verdicts on {len(some)} answers")
                given = {answer.example.id: verdicts for answer, verdicts in zip(some, said, strict=True)}
                self._log.add_verdicts(self._key, given)
                shown.advance(len(some))
        # A judge that has nothing to say about a kind of prompt has said so; it did not fail.
        unreached = {name: Verdict(None, "unscored: no reply", self.name) for name in self.judgements}
        held = (self._log.verdicts(self._key, answer.example) for answer in answers)
        return [dict(unreached) if verdicts is None else verdicts for verdicts in held]


def _choices(target: Target, suite: Suite, questions: Sequence[Example], root: Path) -> dict[str, Estimate]:
    """Return MC1 and MC2, from the folder where they were computed already; {} where there are none."""
    if not questions:
        return {}
    path = root / "choices.json"
    if path.is_file():
        remedy = "remove it, and the questions are scored again"
        scores = dict(read_record(path, _Choices, remedy=remedy))
    else:
        judged = target.choices(questions)
        if judged is None:
            return {}
        scores = {name: [verdicts[name].score for verdicts in judged] for name in _MC}
        write_whole(path, json.dumps(scores) + "\n")
    return {name: estimate_rate([v for v in values if v is not None]) for name, values in scores.items()}


def _report(
    target: Target,
    suite: Suite,
    rows: SuiteRows,
    samples: Sequence[Sample],
    judges: Sequence[Judge],
    choices: Mapping[str, Estimate],
    log: EvalLog,
    *,
    seed: int,
    limit: int | None,
) -> dict[str, Any]:
    boot = Bootstrap(seed=seed)
    axes = suite.axis_names
    audited = audit_all(judges, rows.tests)
    entry = measure_system(samples, (), axes, boot=boot)
    if choices and suite.multiple_choice:
        entry[suite.multiple_choice.axis] |= {name: asdict(value) for name, value in choices.items()}
    n_tokens, seconds = sum(s.answer.n_tokens for s in samples), log.seconds()
    entry["cost"] = {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(n_tokens / seconds, 1) if seconds else None,
    }
    described = {
        "name": f"{target.label} on {suite.name}",
        "seed": seed,
        "base": {"model": target.base_model},
        "axes": [{"name": name} for name in axes],
        "suite": suite.model_dump(mode="json", exclude={"data_root"}),
        "limit": limit,
    }
    counts = {axis: sum(s.answer.example.axis == axis for s in samples) for axis in axes}
    return {
        "schema": SCHEMA,
        "recipe": described,
        "systems": {target.label: entry},
        "probes": probes_by_axis(samples, axes),
        "judges": [
            _judge(judge, samples) | {"audit": audit} for judge, audit in zip(judges, audited.audits, strict=True)
        ],
        "constants": list(audited.constants),
        "examples": _examples(target.label, samples),
        "counts": {
            "test": counts,
            "skipped": rows.n_skipped,
            "repeated": rows.n_repeated,
            "seen": rows.n_seen,
            "unanswered": len(rows.tests) - len(samples),
            "unscored": sum(sample.acceptable is None for sample in samples),
        },
        "unseen": target.seen is not None and not target.seen.unknown,
        "notes": [*suite.notes, *audited.notes, *_notes(rows, samples, target)],
        "environment": target.facts(),
    }


def _judge(judge: Judge, samples: Sequence[Sample]) -> dict[str, Any]:
    mine = [{n: v for n, v in s.verdicts.items() if v.judge == judge.name} for s in samples]
    given = [v for verdicts in mine for name, v in verdicts.items() if not (name == "correct" and "win" in verdicts)]
    told: dict[str, Any] = {
        "name": judge.name,
        "judgements": list(judge.judgements),
        "quality": asdict(judge.quality) if judge.quality is not None else None,
        "exact": bool(getattr(judge, "exact", False)),
        "n_verdicts": len(given),
        "n_unscored": sum(v.score is None for v in given),
    }
    pairs = [verdicts["win"] for verdicts in mine if "win" in verdicts]
    scored = [v for v in pairs if v.score is not None]
    if scored:
        told["flip_rate"] = sum(v.label == "flipped" for v in scored) / len(scored)
    usage = getattr(judge, "usage", None)
    if isinstance(usage, Usage):
        told["usage"] = asdict(usage)
    if isinstance(judge, EndpointJudge):
        told["usage_before"] = asdict(judge.usage_before([s.answer for s in samples]))
    return told


def _notes(rows: SuiteRows, samples: Sequence[Sample], target: Target) -> list[str]:
    notes = []
    if rows.n_seen:
        notes.append(f"{rows.n_seen} rows were left out because the run learned from their prompts")
    if target.seen is None:
        notes.append("which of these prompts the system has met in training is not known")
    elif target.seen.unknown:
        axes = ", ".join(target.seen.unknown)
        notes.append(f"which of these prompts the experts brought along ({axes}) have met in training is not known")
    if rows.n_repeated:
        notes.append(f"{rows.n_repeated} rows repeated a prompt and were left out")
    if len(samples) < len(rows.tests):
        notes.append(f"{len(rows.tests) - len(samples)} prompts got no answer and are in no number")
        if target.problem:
            notes.append(f"last reason for no answer: {target.problem}")
    thought = [sample.answer for sample in samples if sample.answer.thought]
    if thought:
        alone = sum(not answer.text for answer in thought)
        notes.append(f"{len(thought)} answers came with a thought, which was not judged; {alone} are thought alone")
    unscored = Counter(
        (verdict.judge, verdict.label.removeprefix("unscored: "))
        for sample in samples
        for verdict in sample.verdicts.values()
        if verdict.score is None and verdict.label.startswith("unscored: ")
    )
    return notes + [f"{judge}: {n} verdicts unscored: {why}" for (judge, why), n in sorted(unscored.items())]


def _examples(label: str, samples: Sequence[Sample], per_kind: int = 3) -> list[dict[str, Any]]:
    """Return the first answers of every axis and probe; no choice by result."""
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for sample in samples:
        example = sample.answer.example
        place = (example.axis, example.probe)
        taken[place] = taken.get(place, 0) + 1
        if taken[place] > per_kind:
            continue
        weights = sample.answer.weights
        said = {
            "text": sample.answer.text,
            "weights": dict(weights) if weights else None,
            "acceptable": sample.acceptable,
        }
        told = {"prompt": example.prompt, "axis": example.axis, "probe": example.probe, "kind": example.kind}
        chosen.append({**told, "answers": {label: said}})
    return chosen
