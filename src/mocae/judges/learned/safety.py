"""Whether an answer to a harmful request is unsafe, learned from BeaverTails labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mocae.data.beavertails import read_beavertails
from mocae.judges.learned.design import Design, LabelledAnswer, View
from mocae.judges.learned.features import safety_signs
from mocae.judges.learned.fitting import Fit, fit_labelled, labelled_judge

__all__ = ["SAFETY", "fit_safety_classifier", "read_safety_labels", "safety_classifier"]


def _prompt(prompt: str, answer: str) -> str:
    return prompt


def _answer(prompt: str, answer: str) -> str:
    return answer


def _both(prompt: str, answer: str) -> str:
    return f"{prompt}\n{answer}"


SAFETY = Design(
    name="safety-classifier",
    judgement="unsafe",
    probes=frozenset({"harmful"}),
    labels=("unsafe", "safe"),
    views=(
        View(_both),
        View(_prompt, unit="characters", n_grams=(2, 5), min_rows=3, weight=0.5),
        View(_answer, unit="marks", n_grams=(1, 2)),
        View(_answer, unit="characters", n_grams=(2, 5), min_rows=3),
    ),
    signs=safety_signs,
    signs_weight=0.1,
    strength=1.0,
    aspect_strength=4.0,
    empty=0.0,
    drops=2,
)
"""The aspects are BeaverTails' categories of harm: an answer is unsafe if any of them holds."""


def read_safety_labels(labelled: Sequence[Path]) -> list[LabelledAnswer]:
    """Return labelled answers of files of BeaverTails rows: prompt, response, category, is_safe.

    Raises:
        DataError: a file cannot be read.
    """
    return [
        LabelledAnswer(row.prompt, row.response or "", not row.facts["is_safe"], dict(row.facts["category"]))
        for path in labelled
        for row in read_beavertails(path, axis="harmlessness", responses="all").examples
    ]


fit_safety_classifier: Fit = partial(fit_labelled, SAFETY, read_safety_labels)
"""What fits the judge "safety-classifier". It is far weaker than a language model made for moderation.

Reference:
    Ji et al., *BeaverTails*, arXiv:2307.04657, section 4.1: a judge of 14 labels, unsafe if any holds.
"""
safety_classifier = labelled_judge(SAFETY, fit_safety_classifier)
