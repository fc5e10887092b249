"""Ask the judges about answers, and decide which answers are acceptable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mocae.axes import probe
from mocae.distributed import size, spread
from mocae.errors import JudgeError
from mocae.judges import Judge
from mocae.types import Answer, Sample, Verdict

__all__ = ["judge_answers"]


def judge_answers(system: str, answers: Sequence[Answer], judges: Sequence[Judge]) -> list[Sample]:
    """Return a judged sample an answer, in order.

    Judges are asked in order, each about the answers that lack a scored verdict on any of its judgements: where several
    could give the same one the first that scores it counts, and the others are not asked for what would not be used. A
    judgement nobody scored stays unscored: it makes the answer neither acceptable nor unacceptable.

    Raises:
        JudgeError: a judge gave another number of verdicts than there are answers.
    """
    held: list[dict[str, Verdict]] = [{} for _ in answers]
    for judge in judges:
        lacking = [i for i, verdicts in enumerate(held) if not all(_scored(verdicts, n) for n in judge.judgements)]
        for i, given in zip(lacking, _verdicts(system, judge, [answers[i] for i in lacking]), strict=True):
            held[i] |= {name: verdict for name, verdict in given.items() if not _scored(held[i], name)}
    return [
        Sample(system, answer, verdicts, probe(answer.example.probe).accepts(verdicts))
        for answer, verdicts in zip(answers, held, strict=True)
    ]


def _scored(verdicts: Mapping[str, Verdict], name: str) -> bool:
    return name in verdicts and verdicts[name].score is not None


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
