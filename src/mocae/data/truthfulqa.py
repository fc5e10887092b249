"""TruthfulQA: questions that many people answer wrongly, with correct and incorrect reference answers.

The benchmark asks not to be trained on; whoever trains an axis on it says so and tests on other questions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from mocae.data.rows import OnBadRow, ReadResult, Row, examples_in, needs_path
from mocae.types import Example

__all__ = ["read_truthfulqa", "read_truthfulqa_mc"]


def read_truthfulqa(
    path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", answers: Literal["best", "all"] = "best"
) -> ReadResult:
    """Return questions as "question" prompts: the best answer is the response, the category the `kind`.

    `facts` carries the lists `correct` and `incorrect`.

    Args:
        path: the published CSV.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.
        answers: "all" gives one example for every correct answer, for training on few questions.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.

    Reference:
        Lin et al., *TruthfulQA*, arXiv:2109.07958.
    """

    def convert(row: Row) -> Example:
        return Example(
            row.text("Question"),
            axis=axis,
            probe="question",
            response=row.text("Best Answer"),
            kind=row.text("Category"),
            facts={"correct": _answers(row, "Correct Answers"), "incorrect": _answers(row, "Incorrect Answers")},
            source=row.source,
        )

    result = examples_in(needs_path("truthfulqa", path), convert, on_bad_row=on_bad_row)
    if answers == "best":
        return result
    every = [replace(e, response=answer) for e in result.examples for answer in e.facts["correct"]]
    return replace(result, examples=every)


def read_truthfulqa_mc(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error") -> ReadResult:
    """Return multiple-choice questions: the right choice is the response, the choices are `facts`.

    `facts["mc1"]` and `facts["mc2"]` map every choice to 1 (true) or 0 (false); MC1 has exactly one true choice.

    Args:
        path: the published `mc_task.json`.
        axis: whose rows these are.
        on_bad_row: whether a bad row stops the reading or is counted and left out.

    Raises:
        ConfigError: no path.
        DataError: see `mocae.data.rows.examples_in`.
    """

    def convert(row: Row) -> Example:
        mc1, mc2 = _choices(row, "mc1_targets"), _choices(row, "mc2_targets")
        right = [choice for choice, label in mc1.items() if label == 1]
        if len(right) != 1:
            raise row.wrong("mc1_targets", f"{len(right)} choices labelled 1", "exactly one")
        return Example(
            row.text("question"),
            axis=axis,
            probe="question",
            response=right[0],
            facts={"mc1": mc1, "mc2": mc2},
            source=row.source,
        )

    return examples_in(needs_path("truthfulqa-mc", path), convert, on_bad_row=on_bad_row)


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
