"""Values in a file: each function returns one checked, or raises ValueError with what was expected."""

from __future__ import annotations

from typing import Any

from mocae.metrics import REFUSAL_LABELS

__all__ = ["flag", "label", "number", "numbers", "refusal_label", "text_length"]


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
    found = float(value) if isinstance(value, bool) else number(value)
    if found != int(found) or found < 0:
        raise ValueError("a label: 0, 1, ..., or true or false")
    return int(found)


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
