"""Ask the judges about answers, and decide which answers are acceptable."""

from __future__ import annotations

from collections.abc import Sequence

from mocae.axes import probe
from mocae.judges import Judge
from mocae.types import Answer, Sample, Verdict

__all__ = ["judge_answers"]


def judge_answers(system: str, answers: Sequence[Answer], judges: Sequence[Judge]) -> list[Sample]:
    """Return a judged sample an answer, in order.

    Every judge is asked about every answer and says what applies. Where several give the same judgement the first one
    in order that scored it counts. A judgement nobody scored stays unscored: it makes the answer neither acceptable nor
    unacceptable.
    """
    asked = [judge.judge(answers) for judge in judges]
    samples = []
    for i, answer in enumerate(answers):
        verdicts: dict[str, Verdict] = {}
        for rows in asked:
            for name, verdict in rows[i].items():
                if name not in verdicts or verdicts[name].score is None:
                    verdicts[name] = verdict
        samples.append(Sample(system, answer, verdicts, probe(answer.example.probe).accepts(verdicts)))
    return samples
