"""What a classifier judge looks at: texts made of prompt and answer, and hand-made numbers about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Design", "LabelledAnswer", "Varied", "View", "endings"]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answer with its label; labels of finer aspects of it and the model that gave it, where the data has them."""

    prompt: str
    answer: str
    holds: bool
    aspects: dict[str, bool] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Varied:
    """An answer made from labelled ones, to learn from; with the indices of the rows it is made from."""

    row: LabelledAnswer
    parents: tuple[int, ...]


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
        signs: prompt and answer to hand-made numbers.
        signs_weight: factor on them.
        strength: inverse regularisation strength C of the logistic regression.
        aspect_strength: the same for the aspects; None: aspects are not used.
        empty: score of an answer without text, which needs no classifier.
        drops: sentences at the beginning of an answer that are left out one after the other; the largest score of what
            is left counts, so that no polite opening hides what follows.
        word: a prompt and an answer for which the judgement holds to its word; None: always the first of `labels`.
        balanced: both labels have equal say, however many rows each has.
        varied: rows to answers made from them, which are learned from as well; None: none.
        standardised: the signs are standardised; False: they have one scale already, whatever rows are at hand.
        at_least: an answer to the lowest score it may get; None: 0.
        sign_names: names of the signs where their weights are all that is learned, see `weights`; else empty.
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
    word: Callable[[str, str], str] | None = None
    balanced: bool = False
    varied: Callable[[Sequence[LabelledAnswer]], list[Varied]] | None = None
    standardised: bool = True
    at_least: Callable[[str], float] | None = None
    sign_names: tuple[str, ...] = ()

    def label(self, score: float, prompt: str, answer: str) -> str:
        """Return the word for a score of an answer to a prompt."""
        if score >= 0.5 and self.word is not None:
            return self.word(prompt, answer)
        return self.labels[score < 0.5]

    def scores(self, probs: Iterable[float], answers: Sequence[str]) -> list[float]:
        """Return the scores of answers from the probabilities a classifier gives them."""
        lowest = self.at_least or (lambda _: 0.0)
        return [
            max(float(p), lowest(answer)) if answer.strip() else self.empty
            for p, answer in zip(probs, answers, strict=True)
        ]

    def weights(self, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the intercept and the weight of each named sign, as they are applied to signs as they are."""
        learned = parts["model"].coef_[0] * self.signs_weight
        named = {name: round(float(weight), 4) for name, weight in zip(self.sign_names, learned, strict=True)}
        return {"intercept": round(float(parts["model"].intercept_[0]), 4), "weights": named}

    def regression(self, strength: float | None = None) -> Any:
        """Return a classifier of the features that is not fitted yet; `strength`: None: the design's."""
        from sklearn.linear_model import LogisticRegression

        weight = "balanced" if self.balanced else None
        return LogisticRegression(C=self.strength if strength is None else strength, class_weight=weight, max_iter=2000)

    def fitted_features(self, rows: Sequence[LabelledAnswer]) -> tuple[dict[str, Any], Any]:
        """Return vectorizers and a scaler fitted on rows without their labels, and the feature matrix of these rows."""
        from sklearn.preprocessing import StandardScaler

        pairs = [(row.prompt, row.answer) for row in rows]
        texts, numbers = [[view.text(*pair) for pair in pairs] for view in self.views], self.numbers(pairs)
        parts = {
            "vectorizers": [view.vectorizer().fit(text) for view, text in zip(self.views, texts, strict=True)],
            "scaler": StandardScaler(with_mean=self.standardised, with_std=self.standardised).fit(numbers),
        }
        return parts, self._matrix(parts, texts, numbers)

    def features(self, parts: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> Any:
        """Return the sparse feature matrix, shape (N, F), of pairs of prompt and answer.

        Args:
            parts: the fitted "vectorizers", one a view, and the "scaler" of the signs.
            pairs: at least one.
        """
        return self._matrix(parts, [[view.text(*pair) for pair in pairs] for view in self.views], self.numbers(pairs))

    def _matrix(self, parts: Mapping[str, Any], texts: list[list[str]], numbers: npt.NDArray[np.float64]) -> Any:
        from scipy.sparse import csr_matrix, hstack

        blocks = [
            vectorizer.transform(text) * view.weight
            for view, vectorizer, text in zip(self.views, parts["vectorizers"], texts, strict=True)
        ]
        signs = parts["scaler"].transform(numbers) * self.signs_weight
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
