"""Judges that learn from labelled answers: what they look at, how they are fitted, measured, saved and loaded."""

from __future__ import annotations

from mocae.judges.learned.classifier import ClassifierJudge, JudgeRecord, load_classifier, read_judge
from mocae.judges.learned.design import Design, LabelledAnswer, View
from mocae.judges.learned.fitting import ClassifierFitter, Fit, fit_labelled, labelled_judge
from mocae.judges.learned.unseen import UnseenModel, by_model, leave_models_out

__all__ = [
    "ClassifierFitter",
    "ClassifierJudge",
    "Design",
    "Fit",
    "JudgeRecord",
    "LabelledAnswer",
    "UnseenModel",
    "View",
    "by_model",
    "fit_labelled",
    "labelled_judge",
    "leave_models_out",
    "load_classifier",
    "read_judge",
]
