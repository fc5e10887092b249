"""Ask the judges about answers, and decide which answers are acceptable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from mocae.axes import probe
from mocae.distributed import size, spread
from mocae.errors import JudgeError
from mocae.evaluation.log import AnswerLog
from mocae.judges import Judge
from mocae.progress import bar
from mocae.types import Answer, Sample, Verdict

__all__ = ["judge_answers", "kept_verdicts"]


_CHUNK = 32
"""Answers a judge is asked about at once where its verdicts are kept: what a kill can cost."""


def judge_answers(
    system: str, answers: Sequence[Answer], judges: Sequence[Judge], *, log: AnswerLog | None = None
) -> list[Sample]:
    """Return a judged sample an answer, in order.

    Judges are asked in order, each about the answers that lack a scored verdict on any of its judgements: where several
    could give the same one the first that scores it counts, and the others are not asked for what would not be used. A
    judgement nobody scored stays unscored: it makes the answer neither acceptable nor unacceptable.

    Args:
        system: what answered.
        answers: to prompts that differ, where there is a log.
        judges: the same judges in the same order wherever the log is the same.
        log: keeps verdicts as they come; what it holds is not asked again.

    Raises:
        JudgeError: a judge gave another number of verdicts than there are answers.
    """
    held: list[dict[str, Verdict]] = [{} for _ in answers]
    for place, judge in enumerate(judges):
        lacking = [i for i, verdicts in enumerate(held) if not all(_scored(verdicts, n) for n in judge.judgements)]
        some = [answers[i] for i in lacking]
        if log is None:
            rows = _verdicts(system, judge, some)
        else:
            by_id = {answer.example.id: answer for answer in some}
            kept = kept_verdicts(judge, by_id, system=system, log=log, key=f"{place} {judge.name}")
            rows = [kept[answer.example.id] for answer in some]
        for i, verdicts in zip(lacking, rows, strict=True):
            held[i] |= {name: verdict for name, verdict in verdicts.items() if not _scored(held[i], name)}
    return [
        Sample(system, answer, verdicts, probe(answer.example.probe).accepts(verdicts))
        for answer, verdicts in zip(answers, held, strict=True)
    ]


def _scored(verdicts: Mapping[str, Verdict], name: str) -> bool:
    return name in verdicts and verdicts[name].score is not None


def kept_verdicts(
    judge: Judge, answers: Mapping[str, Answer], *, system: str, log: AnswerLog, key: str
) -> dict[str, Mapping[str, Verdict]]:
    """Return verdicts by identity: those of the log, and new ones, kept a few at a time before more are asked for.

    Args:
        judge: who is asked.
        answers: by the identity they have in the log.
        system: what answered, for messages.
        log: keeps verdicts as they come; what it holds is not asked again.
        key: of the judge in the log.

    Raises:
        JudgeError: see `judge_answers`.
    """
    held: dict[str, Mapping[str, Verdict]] = {i: v for i in answers if (v := log.verdicts(key, i)) is not None}
    missing = [i for i in answers if i not in held]
    with bar(len(missing), f"verdicts {judge.name}") if missing else nullcontext() as shown:
        for start in range(0, len(missing), _CHUNK):
            some = missing[start : start + _CHUNK]
            new = dict(zip(some, _verdicts(system, judge, [answers[i] for i in some]), strict=True))
            log.add_verdicts(key, new)
            held |= new
            if shown is not None:
                shown.advance(len(some))
    return held


def _verdicts(system: str, judge: Judge, answers: Sequence[Answer]) -> list[Mapping[str, Verdict]]:
    # Shared by the processes in blocks; a verdict is about one answer, so it does not matter who stands beside it.
    block = max(1, -(-len(answers) // size()))
    blocks = [answers[i : i + block] for i in range(0, len(answers), block)]

    def ask(answers: Sequence[Answer]) -> Sequence[Mapping[str, Verdict]]:
        rows = judge.judge(answers)
        if len(rows) != len(answers):
            raise JudgeError(
                f"judge {judge.name!r} gave verdicts on {len(rows)} of {len(answers)} answers of {system!r}; it must "
                "return one dictionary an answer, {} where it has nothing to say"
            )
        return rows

    return [row for rows in spread(blocks, ask) for row in rows]
