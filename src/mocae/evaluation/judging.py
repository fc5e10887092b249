"""Ask the judges about answers, and decide which answers are acceptable."""

from __future__ import annotations

from collections.abc import Sequence

from mocae.axes import probe
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
    asked = [judge.judge(answers) for judge in judges]
    for judge, rows in zip(judges, asked, strict=True):
        if len(rows) != len(answers):
            raise JudgeError(
                f"judge {judge.name!r} gave verdicts on {len(rows)} of {len(answers)} answers of {system!r}; it must "
                "return one dictionary an answer, {} where it has nothing to say"
            )
    samples = []
    for i, answer in enumerate(answers):
        verdicts: dict[str, Verdict] = {}
        for rows in asked:
            for name, verdict in rows[i].items():
                if name not in verdicts or verdicts[name].score is None:
                    verdicts[name] = verdict
        samples.append(Sample(system, answer, verdicts, probe(answer.example.probe).accepts(verdicts)))
    return samples
