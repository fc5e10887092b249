"""Honesty where no answer exists: SelfAware's unanswerable questions and HoneSet's requests beyond a model's limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mocae.data.rows import Row, row_source
from mocae.types import Example, prompt_id

__all__ = ["ABSTENTIONS", "ANSWERS", "read_honeset", "read_selfaware"]

ABSTENTIONS = (
    "I don't know, and I doubt that anybody does.",
    "Nobody knows the answer to that.",
    "There is no way to know this for certain.",
    "That is a matter of opinion, so I can't give you one right answer.",
    "I'm not sure that this question has an answer.",
    "It depends on whom you ask; people see this differently.",
    "This is unknown, as far as I can tell.",
    "I can't answer that: nothing that is known today settles it.",
    "No one can say. It may become clear in the future, or it may not.",
    "There is no definite answer to this question.",
    "I have no way of finding that out, so I would rather not guess.",
    "That cannot be known; whatever I said would be a guess.",
    "People have argued about this for a long time, and it remains an open question.",
    "Honestly, I do not know. There is no evidence that would decide it.",
    "It is impossible to say; I could only speculate.",
    "This can't be answered with a fact, only with a personal view, and I have none.",
    "I am not able to answer this. It goes beyond what anybody can check.",
    "That is not something that can be determined.",
    "I am uncertain here. Any answer would depend on things that nobody can foresee.",
    "There is no single correct answer; it is up to each person to decide.",
)
"""What the option `responses` of `selfaware` answers to questions without an answer; each fits any of them."""
ANSWERS = ("{}.", "The answer is {}.", "That would be {}.")
"""What it makes of the reference answer to a question that has one."""


@row_source("selfaware", within="example")
def read_selfaware(
    row: Row, *, responses: bool = False, which: Literal["answerable", "unanswerable", "all"] = "all"
) -> Example | None:
    """Return a question as an "answerable" or "unanswerable" prompt; the first answer is the response.

    The published JSON is an object whose "example" lists the questions.

    Args:
        row: of the file.
        responses: give every row a sentence to learn from: an abstention of `ABSTENTIONS` to questions without an
            answer, for which the file has none, and the answer that most of the others contain, in a form of `ANSWERS`,
            to those with one. The hash of the question chooses the wording.
        which: which questions are kept.

    Reference:
        Yin et al., *Do Large Language Models Know What They Don't Know?*, arXiv:2305.18153.
    """
    kind = "answerable" if row.flag("answerable") else "unanswerable"
    question, answers = row.text("question"), row.json("answer") or []
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise row.wrong("answer", f"a value of type {type(answers).__name__}", "a list of texts, or null")
    response = answers[0] if answers else None
    if responses:
        if bool(answers) is (kind == "unanswerable"):
            raise row.wrong("answer", f"{len(answers)} answers to an {kind} question", "some if answerable, else none")
        response = _sentence(question, answers)
    facts = {"reference": answers} if answers else {}
    return row.example(question, kind, response, kind=kind, facts=facts) if which in (kind, "all") else None


def _sentence(question: str, answers: Sequence[str]) -> str:
    """Return an abstention where there is no answer, else a sentence with the one that most of the others contain."""
    forms = ANSWERS if answers else ABSTENTIONS
    form = forms[int(prompt_id(question), 16) % len(forms)]
    if not answers:
        return form
    # Aliases come in no order ("two fluid model for helium", "helium gas", "helium"): what they share is the answer.
    shared = max(answers, key=lambda a: (any(map(str.isalnum, a)), sum(f" {a} " in f" {other} " for other in answers)))
    text = form.format(shared.strip().rstrip("."))
    return text[0].upper() + text[1:]


@row_source("honeset")
def read_honeset(row: Row) -> Example:
    """Return a request beyond what a language model can do (instruction, category) as a "limits" prompt.

    Reference:
        Gao et al., *HonestLLM*, arXiv:2406.00380.
    """
    return row.example(row.text("instruction"), "limits", kind=row.text("category"))
