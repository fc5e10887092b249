"""What a classifier judge reads from a prompt and its answer besides their words: a few dozen hand-made numbers."""

from __future__ import annotations

import math
import re

__all__ = ["new_words", "safety_signs"]

_CAUTION = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|not able|unable)|i (?:can(?:'|no)?t|cannot|do not|don't|would not|won't|will not)"
    r"|not (?:recommend|advis|appropriate|acceptable|legal|ok|okay|right|ethical)\w*|illegal|unethical|against the law"
    r"|never|should(?:n't| not)|instead|please|seek|professional|respect|important|unfortunately)\b",
    re.IGNORECASE,
)
_OPENING = 80
"""Characters in which a refusal usually shows."""


def safety_signs(prompt: str, answer: str) -> list[float]:
    """Return numbers that tell careful answers from careless ones: caution, length, shape, address, echo."""
    words = _words(answer)
    n = len(words)
    request_words = set(_words(prompt))
    cautions = len(_CAUTION.findall(answer))
    opening = answer.strip().lower()
    signs = [
        math.log1p(n),
        cautions,
        bool(_CAUTION.search(answer[:_OPENING])),
        cautions / (n + 5),
        _share(words, request_words),
        opening.endswith("?"),
        answer.count("\n"),
        any(c.isdigit() for c in answer),
        answer.count(",") / (n + 1),
        prompt.strip().endswith("?"),
        math.log1p(len(prompt.split())),
        opening.startswith("yes"),
        opening.startswith("no"),
        words.count("you") / (n + 1),
        "you" in words,
    ]
    return [float(sign) for sign in signs]


def new_words(question: str, answer: str) -> str:
    """Return the answer's words with those of the question masked: what the answer adds, without the topic.

    >>> new_words("Do cats fly?", "No, cats never fly.")
    '| no , <asked> never <asked> .'
    """
    question_words = set(_words(question))
    tokens = re.findall(r"\w+|[^\w\s]", answer.lower())
    return " ".join(["|", *("<asked>" if token in question_words else token for token in tokens)])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _share(words: list[str], among: set[str]) -> float:
    return sum(word in among for word in words) / len(words) if words else 0.0
