"""`mocae eval`: one system, one suite, one folder with every answer, verdict and number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from mocae.config import JudgeConfig
from mocae.errors import ArtifactError, JudgeError
from mocae.evaluation import AnswerLog, Bootstrap, Cost, judge_answers, score_multiple_choice
from mocae.files import Record, read_json, read_record, write_whole
from mocae.judges import Judge
from mocae.metrics import estimate_rate
from mocae.models import Generator
from mocae.outputs import writing
from mocae.pipelines.check.suite import refuse_unjudged
from mocae.pipelines.suite import Suite, SuiteRows, read_suite
from mocae.pipelines.summary import SCHEMA, RunResult, sections, write_result
from mocae.pipelines.targets import Target
from mocae.progress import say, visible
from mocae.report import html_page
from mocae.stages.answers import Answered, generation_of
from mocae.stages.judging import build_judges
from mocae.stages.store import Store, key_of
from mocae.types import Answer, Example

__all__ = ["evaluate", "with_cache"]

_FILES = ("report.html", "report.json", "samples.jsonl")


def evaluate(
    target: Target,
    suite: Suite,
    *,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RunResult:
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
    store = Store(out, kind="eval", files=_FILES)
    with visible(progress), store.locked():
        known = target.seen.prompts if target.seen is not None else frozenset[str]()
        rows = read_suite(suite, limit=limit, seed=seed, without=known)
        for note in refuse_unjudged(suite, rows):
            say(f"note: {note}")
        parts = _claim(store.root, target, suite, limit, seed, rows)
        log = AnswerLog(store.root)
        if any(log.answer(example) is None for example in rows.tests):
            target.reach()
        judges = _judges(suite, rows, store.root, seed)
        answers = _answers(target, suite, rows.tests, log, seed)
        samples = judge_answers(target.label, answers, judges, log=log)
        report = _report(target, suite, rows, judges, Answered(samples, _cost(log, answers), 0), seed=seed)
        report["recipe"]["limit"] = limit
        if rows.choices and suite.multiple_choice and target.model is not None:
            entry = report["systems"][target.label][suite.multiple_choice.axis]
            entry |= _choices(target.model, rows.choices, store, parts)
        page = html_page(report, samples)
        with writing(out, "eval", _FILES):
            result = write_result(store.root, report, samples)
            write_whole(result.html_path, page)
    return result


class _Claim(Record):
    """`eval.json`: what a folder is for."""

    parts: dict[str, JsonValue]


def _claim(root: Path, target: Target, suite: Suite, limit: int | None, seed: int, rows: SuiteRows) -> dict[str, Any]:
    """Return what the folder is for, after writing it down; one that is for something else is refused."""
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
    else:
        claim = {"schema": SCHEMA, "suite": f"{suite.name} {suite.version}", "limit": limit, "parts": parts}
        write_whole(path, json.dumps(claim, indent=1) + "\n")
    return parts


def _answers(target: Target, suite: Suite, tests: Sequence[Example], log: AnswerLog, seed: int) -> list[Answer]:
    missing = [example for example in tests if log.answer(example) is None]
    if missing:
        say(f"{target.label}: {len(missing)} of {len(tests)} prompts to answer")
        target.answer(tests, generation_of(suite.generation, seed=seed), log)
    answers = [answer for answer in map(log.answer, tests) if answer is not None]
    if not answers:
        why = f" (last: {target.problem})" if target.problem else ""
        raise JudgeError(f"{target.label}: none of {len(tests)} prompts was answered{why}; the same command asks again")
    return answers


def _judges(suite: Suite, rows: SuiteRows, root: Path, seed: int) -> list[Judge]:
    """Return the judges of a suite; none learns from a prompt that is tested."""
    excluded = sorted({row.id for row in (*rows.tests, *rows.choices)})
    configs = [JudgeConfig.model_validate(with_cache(config.model_dump(), root)) for config in suite.judges]
    return build_judges(configs, [excluded] * len(configs), data_root=suite.data_root, seed=seed)


def with_cache(entry: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return a judge and its options, replies of endpoints kept in the folder unless the options say where."""
    options = dict(entry.get("options") or {})
    if entry["judge"] == "openai" or (entry["judge"] == "guard" and options.get("base_url")):
        options.setdefault("cache", str(root.resolve() / "replies.jsonl"))
    if entry["judge"] == "vote":
        options["judges"] = [with_cache(one, root) for one in options.get("judges") or ()]
    return {"judge": entry["judge"], "options": options}


def _choices(model: Generator, questions: Sequence[Example], store: Store, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return MC1 and MC2 of a model whose probabilities can be read; the scores of the questions are a stage."""
    file = "choices.json"

    def make(folder: Path) -> None:
        judged = score_multiple_choice(model, questions)
        scores = {name: [verdicts[name].score for verdicts in judged] for name in ("mc1", "mc2")}
        (folder / file).write_text(json.dumps(scores) + "\n", encoding="utf-8")

    scores = read_json(store.stage("choices", parts, make).folder / file)
    return {name: asdict(estimate_rate([v for v in values if v is not None])) for name, values in scores.items()}


def _cost(log: AnswerLog, answers: Sequence[Answer]) -> Cost:
    return Cost(log.seconds(), sum(answer.n_tokens for answer in answers), None)


def _report(
    target: Target, suite: Suite, rows: SuiteRows, judges: Sequence[Judge], answered: Answered, *, seed: int
) -> dict[str, Any]:
    """Return the report without multiple choice; what is evaluated stands in it for a recipe."""
    answers = [sample.answer for sample in answered.samples]
    report = sections(
        {target.label: answered},
        suite.axis_names,
        judges,
        rows.tests,
        boot=Bootstrap(seed=seed),
        counts=_counts(suite, rows, answers),
        notes=[*suite.notes, *_notes(rows, len(answers), target)],
    )
    return report | {
        "recipe": {
            "name": f"{target.label} on {suite.name}",
            "seed": seed,
            "base": {"model": target.base_model},
            "axes": [{"name": name} for name in suite.axis_names],
            "suite": suite.model_dump(mode="json", exclude={"data_root"}),
        },
        "unseen": target.seen is not None and not target.seen.unknown,
        "environment": target.facts(),
    }


def _counts(suite: Suite, rows: SuiteRows, answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "test": {axis: sum(answer.example.axis == axis for answer in answers) for axis in suite.axis_names},
        "skipped": rows.n_skipped,
        "repeated": rows.n_repeated,
        "seen": rows.n_seen,
        "unanswered": len(rows.tests) - len(answers),
    }


def _notes(rows: SuiteRows, n_answered: int, target: Target) -> list[str]:
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
    if n_answered < len(rows.tests):
        notes.append(f"{len(rows.tests) - n_answered} prompts got no answer and are in no number")
        if target.problem:
            notes.append(f"last reason for no answer: {target.problem}")
    return notes
