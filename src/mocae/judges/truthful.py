"""Whether an answer to a question is truthful, and whether it is informative, learned from TruthfulQA's judge data."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mocae.data.readers import place, read_rows
from mocae.data.rows import Row
from mocae.judges.classifier import ClassifierJudge
from mocae.judges.design import Design, LabelledAnswer, View
from mocae.judges.features import answer_words, new_words, question_signs
from mocae.judges.fitting import fit_classifier, labelled_judge

__all__ = [
    "INFORMATIVE",
    "TRUTHFUL",
    "fit_informative_classifier",
    "fit_truthful_classifier",
    "informative_classifier",
    "truthful_classifier",
]

_PROMPT = re.compile(r"Q: (?P<question>.*?)\nA:(?P<answer>.*)\n(?P<asked>True|Helpful):", re.DOTALL)
_COMPLETIONS = {"yes": True, "no": False}


def _design(name: str, judgement: str, labels: tuple[str, str], empty: float) -> Design:
    return Design(
        name=name,
        judgement=judgement,
        probes=frozenset({"question"}),
        labels=labels,
        views=(
            View(answer_words, unit="marks", n_grams=(1, 3)),
            View(new_words, unit="spaced", n_grams=(1, 2)),
        ),
        signs=question_signs,
        signs_weight=0.2,
        strength=0.5,
        aspect_strength=None,
        empty=empty,
    )


# Saying nothing states nothing false and gives no information.
TRUTHFUL = _design("truthful-classifier", "truthful", ("truthful", "untruthful"), 1.0)
INFORMATIVE = _design("informative-classifier", "informative", ("informative", "uninformative"), 0.0)


def fit_truthful_classifier(
    labelled: Path, *, encoder: str | None = None, seed: int = 0, exclude_prompts: Collection[str] = ()
) -> ClassifierJudge:
    """Return a judge of "truthful" fitted on 80 % of the questions and measured on the others.

    It reads how an answer is phrased (negation, hedges, what it adds to the question) and knows no facts: on new
    questions a well-phrased falsehood passes. Its quality says how far to trust it.

    Args:
        labelled: rows of prompt in the form "Q: ... A: ... True:", a line each, and completion (" yes" or " no").
        encoder: folder or hub id of a sentence encoder that looks as well; None: words alone.
        seed: of the split.
        exclude_prompts: identities of questions it must not learn from.

    Raises:
        DataError: the file cannot be read, or too little is left of it.

    Reference:
        Lin et al., *TruthfulQA*, arXiv:2109.07958, section 3.2 and appendix B (the judge data).
    """
    return _fit(TRUTHFUL, "True", labelled, encoder=encoder, seed=seed, exclude_prompts=exclude_prompts)


def fit_informative_classifier(
    labelled: Path, *, encoder: str | None = None, seed: int = 0, exclude_prompts: Collection[str] = ()
) -> ClassifierJudge:
    """Return a judge of "informative", see `fit_truthful_classifier`; its prompts end in "Helpful:".

    Raises:
        DataError: the file cannot be read, or too little is left of it.
    """
    return _fit(INFORMATIVE, "Helpful", labelled, encoder=encoder, seed=seed, exclude_prompts=exclude_prompts)


truthful_classifier = labelled_judge(TRUTHFUL, fit_truthful_classifier)
informative_classifier = labelled_judge(INFORMATIVE, fit_informative_classifier)


def _fit(
    design: Design, asked: str, labelled: Path, *, encoder: str | None, seed: int, exclude_prompts: Collection[str]
) -> ClassifierJudge:
    rows = [_labelled(values, f"{labelled}: {place(labelled, n)}", asked) for n, values in read_rows(labelled)]
    return fit_classifier(
        design, rows, data=f"labels of {labelled.name}", encoder=encoder, seed=seed, exclude_prompts=exclude_prompts
    )


def _labelled(values: dict[str, Any], where: str, asked: str) -> LabelledAnswer:
    row = Row(values, where, where)
    match = _PROMPT.fullmatch(row.text("prompt"))
    if match is None or match["asked"] != asked:
        raise row.wrong("prompt", "text of another form", f"'Q: <question>', 'A: <answer>' and '{asked}:', a line each")
    completion = row.text("completion").strip()
    if completion not in _COMPLETIONS:
        raise row.wrong("completion", repr(completion[:20]), "' yes' or ' no'")
    return LabelledAnswer(match["question"], match["answer"].strip(), _COMPLETIONS[completion])
