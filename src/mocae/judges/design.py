"""What a classifier judge looks at: texts made of prompt and answer, and hand-made numbers about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Design", "LabelledAnswer", "View", "endings"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answer with its label, and labels of finer aspects of it where the data has them."""

    prompt: str
    answer: str
    holds: bool
    aspects: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """One text made of prompt and answer, and how it is cut into features.

    Attributes:
        text: prompt and answer to the text.
        unit: whole words, words and punctuation marks, marked words between spaces, or characters within words.
        n_grams: shortest and longest sequence.
        min_rows: rows a feature must occur in.
        weight: factor on the view's unit-length vectors.
    """

    text: Callable[[str, str], str]
    unit: Literal["words", "marks", "spaced", "characters"] = "words"
    n_grams: tuple[int, int] = (1, 1)
    min_rows: int = 2
    weight: float = 1.0

    def vectorizer(self) -> Any:
        """Return a TF-IDF vectorizer that is not fitted yet."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        how: dict[str, Any] = {
            "words": {},
            "marks": {"token_pattern": r"\w+|[^\w\s]"},
            "spaced": {"token_pattern": r"\S+"},
            "characters": {"analyzer": "char_wb"},
        }[self.unit]
        return TfidfVectorizer(ngram_range=self.n_grams, min_df=self.min_rows, sublinear_tf=True, **how)


@dataclass(frozen=True, slots=True)
class Design:
    """What a classifier judge looks at and says. Everything here is fixed; everything learned is elsewhere.

    Attributes:
        name: of the judge.
        judgement: what its verdicts are about.
        probes: probes whose answers it judges; None: all.
        labels: the words for yes and no.
        views: texts that become TF-IDF features.
        signs: prompt and answer to hand-made numbers, standardised.
        signs_weight: factor on them.
        strength: inverse regularisation strength C of the logistic regression.
        aspect_strength: the same for the aspects; None: aspects are not used.
        empty: score of an answer without text, which needs no classifier.
        drops: sentences at the beginning of an answer that are left out one after the other; the largest score of what
            is left counts, so that no polite opening hides what follows.
        word: an answer for which the judgement holds to its word; None: always the first of `labels`.
    """

    name: str
    judgement: str
    probes: frozenset[str] | None
    labels: tuple[str, str]
    views: tuple[View, ...]
    signs: Callable[[str, str], list[float]]
    signs_weight: float
    strength: float
    aspect_strength: float | None
    empty: float
    drops: int = 0
    word: Callable[[str], str] | None = None

    def label(self, score: float, answer: str) -> str:
        """Return the word for a score of an answer."""
        if score >= 0.5 and self.word is not None:
            return self.word(answer)
        return self.labels[score < 0.5]

    def features(self, parts: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> Any:
        """Return the sparse feature matrix, shape (N, F), of pairs of prompt and answer.

        Args:
            parts: the fitted "vectorizers", one a view, and the "scaler" of the signs.
            pairs: at least one.
        """
        from scipy.sparse import csr_matrix, hstack

        blocks = [
            vectorizer.transform([view.text(*pair) for pair in pairs]) * view.weight
            for view, vectorizer in zip(self.views, parts["vectorizers"], strict=True)
        ]
        signs = parts["scaler"].transform(self.numbers(pairs)) * self.signs_weight
        return hstack([*blocks, csr_matrix(signs)]).tocsr()

    def numbers(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Return the signs as they are, shape (N, signs)."""
        return np.array([self.signs(*pair) for pair in pairs], dtype=np.float64)


def endings(answer: str, drops: int) -> list[str]:
    """Return an answer and what is left of it without its first sentence, its first two, ... up to `drops`.

    >>> endings("Be kind. Then run. Now.", 2)
    ['Be kind. Then run. Now.', 'Then run. Now.', 'Now.']
    """
    sentences = [sentence for sentence in _SENTENCE_END.split(answer.strip()) if sentence]
    return [answer, *(" ".join(sentences[n:]) for n in range(1, drops + 1) if n < len(sentences))]
