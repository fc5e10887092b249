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

    Every judge is asked about every answer and says what applies. Where several give the same judgement the first one
    in order that scored it counts. A judgement nobody scored stays unscored: it makes the answer neither acceptable nor
    unacceptable.

    Raises:
        JudgeError: a judge gave another number of verdicts than there are answers.
    """
    # Shared by the processes in blocks; a verdict is about one answer, so it does not matter who stands beside it.
    block = max(1, -(-len(answers) // size()))
    blocks = [answers[i : i + block] for i in range(0, len(answers), block)]
    asked = [_verdicts(system, judge, blocks) for judge in judges]
    samples = []
    for i, answer in enumerate(answers):
        verdicts: dict[str, Verdict] = {}
        for rows in asked:
            for name, verdict in rows[i].items():
                if name not in verdicts or verdicts[name].score is None:
                    verdicts[name] = verdict
        samples.append(Sample(system, answer, verdicts, probe(answer.example.probe).accepts(verdicts)))
    return samples


def _verdicts(system: str, judge: Judge, blocks: Sequence[Sequence[Answer]]) -> list[Mapping[str, Verdict]]:
    def ask(answers: Sequence[Answer]) -> Sequence[Mapping[str, Verdict]]:
        rows = judge.judge(answers)
        if len(rows) != len(answers):
            raise JudgeError(
                f"judge {judge.name!r} gave verdicts on {len(rows)} of {len(answers)} answers of {system!r}; it must "
                "return one dictionary an answer, {} where it has nothing to say"
            )
        return rows

    return [row for rows in spread(blocks, ask) for row in rows]
