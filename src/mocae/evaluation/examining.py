"""Have one system answer prompts, and the judges decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mocae.distributed import size
from mocae.evaluation.answering import Cost, Generation, answer_all
from mocae.evaluation.judging import judge_answers
from mocae.evaluation.log import AnswerLog
from mocae.judges import Judge
from mocae.models import Generator
from mocae.prompts import PromptFormat
from mocae.types import Example, Sample

__all__ = ["examine"]


def examine(
    model: Generator,
    examples: Sequence[Example],
    judges: Sequence[Judge],
    *,
    system: str,
    prompt_format: PromptFormat,
    generation: Generation,
    label: str,
    work: Path | None = None,
) -> tuple[list[Sample], Cost]:
    """Return a judged answer an example, in order, and what answering cost.

    Args:
        model: what answers.
        examples: the prompts; they differ.
        judges: who decides, see `judge_answers`.
        system: what the model is called.
        prompt_format: see `answer_all`.
        generation: see `answer_all`.
        label: see `answer_all`.
        work: folder of the log that a killed call goes on from, the same for the same arguments alone; None: no log.
            Several processes keep none: each has a part of the answers.
    """
    log = AnswerLog(work) if work is not None and size() == 1 else None
    answers, cost = answer_all(
        model, examples, prompt_format=prompt_format, generation=generation, label=label, log=log
    )
    return judge_answers(system, answers, judges, log=log), cost
