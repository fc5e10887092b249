"""Comparison of an answer with a reference answer: word for word, or by overlap, which is a sign and no more.

Two good answers to an open instruction can share few words, and a wrong one can share many. So the label of a verdict
is the overlap itself, and the judge carries no quality figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from mocae.axes import stored_probe
from mocae.errors import ConfigError, DataError
from mocae.judges.abstention import abstains
from mocae.judges.base import JudgeQuality, Says, judge_each
from mocae.judges.words import comparable_words
from mocae.types import Answer, Example, Verdict

__all__ = ["MatchJudge", "OverlapJudge", "rouge_l", "token_f1"]


def token_f1(answer: str, reference: str) -> float:
    """Return the F1 score of the words of two texts as bags, in [0, 1]; case and punctuation do not count.

    Two texts without words agree (1.0).

    Reference:
        Rajpurkar et al., *SQuAD*, arXiv:1606.05250, section 6.

    Deviation:
        Articles count as words.

    >>> token_f1("The river Nile.", "the Nile")
    0.8
    """
    a, b = comparable_words(answer), comparable_words(reference)
    return _f1(sum((Counter(a) & Counter(b)).values()), len(a), len(b))


def rouge_l(answer: str, reference: str) -> float:
    """Return the F1 score of the longest common subsequence of words, in [0, 1]: overlap that respects order.

    Reference:
        Lin, *ROUGE*, 2004, section 3, with beta = 1 and without stemming.

    Deviation:
        Words are those of `mocae.judges.words`. The package rouge-score knows the letters a to z only.

    >>> rouge_l("two one", "one two")
    0.5
    """
    a, b = comparable_words(answer), comparable_words(reference)
    return _f1(_longest_common_subsequence(a, b), len(a), len(b))


class OverlapJudge:
    """Judges "correct" by overlap with `facts["reference"]` (a text, or a list whose best match counts).

    The score is the overlap, scaled piecewise linearly so that 0, `threshold` and 1 become 0, one half and 1: an answer
    is accepted where its overlap reaches the threshold. The label is the overlap unscaled ("overlap 0.31").

    Args:
        measure: "rouge-l" respects the order of words, "token-f1" does not.
        threshold: overlap from which on an answer is accepted, above 0 and below 1. The default is a convention, not
            fitted to anybody's opinion of answers.

    Raises:
        ConfigError: a threshold out of range.
    """

    name = "reference-overlap"
    judgements = ("correct",)
    quality: JudgeQuality | None = None

    def __init__(self, *, measure: Literal["rouge-l", "token-f1"] = "rouge-l", threshold: float = 0.3) -> None:
        if not 0 < threshold < 1:
            raise ConfigError(f"judge 'reference-overlap': threshold is {threshold}; expected above 0 and below 1")
        self._overlap = rouge_l if measure == "rouge-l" else token_f1
        self._threshold = threshold

    @classmethod
    def says(cls, **_: Any) -> Says:
        """Return what it can say: "correct" where there is a reference."""
        return lambda example: cls.judgements if _references(example) else ()

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return "correct" for each answer whose example has a reference, {} for the others."""
        return judge_each(answers, self._one, judge=self.name, judgement="correct")

    def _one(self, answer: Answer) -> Verdict | None:
        references = _references(answer.example)
        if references is None:
            return None
        overlap = max(self._overlap(answer.text, reference) for reference in references)
        return Verdict(_scaled(overlap, self._threshold), f"overlap {overlap:.2f}")


class MatchJudge:
    """Judges "correct" where an answer, or its first line, has the words of a reference: all, in order, and no others.

    Case, punctuation and articles do not count. For tasks with a short answer: where the reference has more words than
    `most_words`, or none, it says nothing. An "answerable" question may be answered by a sentence: it is correct where
    a reference of any length stands in it and it does not abstain. What repeats the question does not count; where the
    question names the reference itself ("A or B?"), a sentence that does is unscored, since it may deny it.

    Args:
        most_words: longest reference that is compared, for tasks.

    Reference:
        Rajpurkar et al., *SQuAD*, arXiv:1606.05250, section 6: exact match.
    """

    name = "reference-match"
    judgements = ("correct",)
    quality: JudgeQuality | None = None

    def __init__(self, *, most_words: int = 3) -> None:
        self._most_words = most_words

    @classmethod
    def says(cls, *, most_words: int = 3) -> Says:
        """Return what it can say: "correct" where there is a reference that is short, or answers a question."""
        return lambda example: cls.judgements if _wanted(example, most_words) else ()

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return "correct" for each answer whose example has a short reference, {} for the others."""
        return judge_each(answers, self._one, judge=self.name, judgement="correct")

    def _one(self, answer: Answer) -> Verdict | None:
        wanted = _wanted(answer.example, self._most_words)
        if not wanted:
            return None
        lines = answer.text.strip().splitlines() or [""]
        matches = any(_without_articles(text) in wanted for text in (answer.text, lines[0]))
        if _is_question(answer.example) and not matches:
            return _named(answer, [" ".join(words) for words in wanted])
        return Verdict(float(matches), "match" if matches else "no match")


def _named(answer: Answer, references: Sequence[str]) -> Verdict:
    """Return whether a sentence names one of the references, beyond what it repeats of the question."""
    if abstains(answer.text):
        return Verdict(0.0, "abstains")
    question = f" {' '.join(_without_articles(answer.example.prompt))} "
    text = f" {' '.join(_without_articles(answer.text))} ".replace(question, " ")
    named = [reference for reference in references if f" {reference} " in text]
    if named and all(f" {reference} " in question for reference in named):
        return Verdict(None, "unscored: the question names the reference as well")
    return Verdict(float(bool(named)), "names the reference" if named else "no match")


def _is_question(example: Example) -> bool:
    return stored_probe(example.probe).wants.get("abstains") is False


def _wanted(example: Example, most_words: int) -> list[list[str]]:
    """Return the words of the references that an answer is compared with; an emoji has none."""
    references = [r for r in _references(example) or () if _is_question(example) or len(r.split()) <= most_words]
    return [words for words in map(_without_articles, references) if words]


def _references(example: Example) -> list[str] | None:
    """Return the reference answers of an example, None where it has none.

    Raises:
        DataError: they are no texts.
    """
    references = example.facts.get("reference")
    if references is None:
        return None
    if isinstance(references, str):
        return [references]
    if not references or not isinstance(references, list) or not all(isinstance(r, str) for r in references):
        raise DataError(f"facts['reference'] is {type(references).__name__}; expected a text or texts, at least one")
    return references


def _without_articles(text: str) -> list[str]:
    return [word for word in comparable_words(text) if word not in ("a", "an", "the")]


def _scaled(overlap: float, threshold: float) -> float:
    if overlap < threshold:
        return 0.5 * overlap / threshold
    return 0.5 + 0.5 * (overlap - threshold) / (1 - threshold)


def _f1(shared: int, n_answer: int, n_reference: int) -> float:
    total = n_answer + n_reference
    return 2 * shared / total if total else 1.0


def _longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]
