"""Values in a file: each function returns one checked, or raises ValueError with what was expected."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from mocae.errors import DataError
from mocae.metrics import REFUSAL_LABELS

__all__ = ["Label", "flag", "kind_of", "label", "number", "numbers", "one_kind", "refusal_label", "text_length"]

Kind = Literal["true or false", "numbers", "words"]
Label = bool | float | str


def kind_of(value: Any) -> Kind:
    """Return what a label is, also one written as text (CSV).

    >>> [kind_of(value) for value in (True, "false", 1, "1.0", "safe")]
    ['true or false', 'true or false', 'numbers', 'numbers', 'words']
    """
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false")):
        return "true or false"
    try:
        number(value)
    except ValueError:
        return "words"
    return "numbers"


def one_kind(*columns: Sequence[Any]) -> tuple[list[list[Label | None]], Kind]:
    """Return the labels of several raters so that equal ones are equal, and their kind; None stays None.

    Numbers are compared as numbers (1 and 1.0 are one label), words after Unicode normalisation. True and false are 1
    and 0 where another rater has numbers, and those are 0 and 1 alone. Where text alone is written and some of it is
    no number, all are words.

    Raises:
        DataError: the kinds do not go together; the message says which they are.

    >>> one_kind(["1.0", "0.0", None], [1, 0, 1])
    ([[1.0, 0.0, None], [1.0, 0.0, 1.0]], 'numbers')
    >>> one_kind([True, 1], [1, 1])
    Traceback (most recent call last):
        ...
    mocae.errors.DataError: one rater has numbers and true or false in one column; write all labels in one form
    """
    known = [[value for value in column if value is not None] for column in columns]
    kinds = [{kind_of(value) for value in column} for column in known]
    every = set().union(*kinds)
    if len(every) > 1 and "words" in every and all(isinstance(value, str) for column in known for value in column):
        every = {"words"}
    elif any(len(forms) > 1 for forms in kinds):
        mixed = next(forms for forms in kinds if len(forms) > 1)
        raise DataError(f"one rater has {' and '.join(sorted(mixed))} in one column; write all labels in one form")
    if every == {"true or false", "numbers"} and all(
        number(value) in (0, 1) for column in known for value in column if kind_of(value) == "numbers"
    ):
        return [[None if value is None else float(label(value)) for value in column] for column in columns], "numbers"
    if len(every) > 1:
        raise DataError(f"one rater has {' and another '.join(sorted(every))}; write all labels in one form")
    kind: Kind = every.pop() if every else "words"
    return [[None if value is None else _as(kind, value) for value in column] for column in columns], kind


def _as(kind: Kind, value: Any) -> Label:
    if kind == "true or false":
        return bool(label(value.strip() if isinstance(value, str) else value))
    return number(value) if kind == "numbers" else unicodedata.normalize("NFC", str(value).strip())


def number(value: Any) -> float:
    """Return a number, also one written as text (CSV)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        return float(value)
    except ValueError:
        raise ValueError("a number") from None


def numbers(value: Any) -> list[float]:
    """Return a list of numbers, at least one."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("a list of numbers")
    return [number(item) for item in value]


def label(value: Any) -> int:
    """Return a class, counted from 0; true is 1."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return int(value.lower() == "true")
    position = float(value) if isinstance(value, bool) else number(value)
    if position != int(position) or position < 0:
        raise ValueError("a label: 0, 1, ..., or true or false")
    return int(position)


def flag(value: Any) -> bool:
    """Return a verdict: a boolean, 0 or 1, or a score in [0, 1] of which one half and more means yes."""
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):
        return value.lower() in ("true", "yes")
    score = float(value) if isinstance(value, bool) else number(value)
    if not 0 <= score <= 1:
        raise ValueError("true or false, or a score in [0, 1]")
    return score >= 0.5


def refusal_label(value: Any) -> str:
    """Return one of XSTest's labels; its files number them: "2_full_refusal"."""
    word = str(value).lstrip("0123456789").lstrip("_")
    if word not in REFUSAL_LABELS:
        raise ValueError(f"one of {', '.join(map(repr, REFUSAL_LABELS))}")
    return word


def text_length(value: Any) -> float:
    """Return the number of characters of a text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return float(len(value))
