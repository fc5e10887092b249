"""TruthfulQA: questions that many people answer wrongly, with correct and incorrect reference answers.

The benchmark asks not to be trained on; whoever trains an axis on it says so and tests on other questions.
"""

from __future__ import annotations

from typing import Literal

from mocae.data.rows import Row, row_source
from mocae.types import Example

__all__ = ["read_truthfulqa", "read_truthfulqa_mc"]


@row_source("truthfulqa")
def read_truthfulqa(row: Row, *, answers: Literal["best", "all"] = "best") -> list[Example]:
    """Return a question as a "question" prompt: the best answer is the response, the category the `kind`.

    `facts` carries the lists `correct` and `incorrect`.

    Args:
        row: of the published CSV.
        answers: "all" gives one example for every correct answer, for training on few questions.

    Reference:
        Lin et al., *TruthfulQA*, arXiv:2109.07958.
    """
    question, best, kind = row.text("Question"), row.text("Best Answer"), row.text("Category")
    facts = {"correct": _answers(row, "Correct Answers"), "incorrect": _answers(row, "Incorrect Answers")}
    responses = facts["correct"] if answers == "all" else [best]
    return [row.example(question, "question", response, kind=kind, facts=facts) for response in responses]


@row_source("truthfulqa-mc")
def read_truthfulqa_mc(row: Row) -> Example:
    """Return a multiple-choice question of the published `mc_task.json`: the right choice is the response.

    `facts["mc1"]` and `facts["mc2"]` map every choice to 1 (true) or 0 (false); MC1 has exactly one true choice.
    """
    mc1, mc2 = _choices(row, "mc1_targets"), _choices(row, "mc2_targets")
    right = [choice for choice, label in mc1.items() if label == 1]
    if len(right) != 1:
        raise row.wrong("mc1_targets", f"{len(right)} choices labelled 1", "exactly one")
    return row.example(row.text("question"), "question", right[0], facts={"mc1": mc1, "mc2": mc2})


def _answers(row: Row, name: str) -> list[str]:
    answers = [answer.strip() for answer in row.text(name).split(";") if answer.strip()]
    if not answers:
        raise row.wrong(name, "no answer", "answers with ';' between them")
    return answers


def _choices(row: Row, name: str) -> dict[str, int]:
    choices = row.labels(name, int)
    if set(choices.values()) != {0, 1}:
        raise row.wrong(name, f"labels {sorted(set(choices.values()))}", "some choices labelled 1 and some 0")
    return choices
