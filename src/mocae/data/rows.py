"""From rows to examples: typed access to a row's fields, with errors that say where, and what every source returns."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from mocae.data.readers import BadRowError, place, read_rows
from mocae.errors import ConfigError, DataError
from mocae.types import Example

__all__ = [
    "OnBadRow",
    "ReadResult",
    "Row",
    "examples_from",
    "half_character",
    "rejected_of",
    "row_source",
]

_MOST_KINDS = 10
"""Kinds of faults that are shown of one file."""
OnBadRow = Literal["error", "skip"]
"""What a row that cannot be used does: stop the reading, or be counted and left out."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """What a source read.

    Attributes:
        examples: at least one, in the order of the source.
        n_skipped: bad rows left out. Rows an option leaves out on purpose are not among them.
        skipped: one message a bad row: file, line, field, what was found, what was expected.
    """

    examples: list[Example]
    n_skipped: int = 0
    skipped: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        values: the fields as read.
        where: file and place, opens every message.
        source: the same, short, for `Example.source`: the last folder, file and line.
        axis: whose row it is.
    """

    values: dict[str, Any]
    where: str
    source: str
    axis: str = ""

    def example(
        self,
        prompt: str,
        probe: str,
        response: str | None = None,
        *,
        kind: str = "",
        group: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> Example:
        """Return the example that this row is, see `mocae.types.Example`."""
        return Example(prompt, self.axis, probe, response, kind, group, facts or {}, self.source)

    def text(self, name: str, *, may_be_empty: bool = False) -> str:
        """Return a field that is text; where it may be empty, null is empty text.

        Raises:
            DataError: the field is missing, no text, empty or blank (unless it may be), or no valid Unicode.
        """
        value = self._value(name)
        if value is None and may_be_empty:
            return ""
        if not isinstance(value, str):
            raise self.wrong(name, _typed(value), "text")
        if not may_be_empty and not value.strip():
            raise self.wrong(name, "empty text", "text that is not empty")
        return value

    def optional(self, name: str) -> str:
        """Return a field that is text, "" where it is missing or null.

        Raises:
            DataError: it is there and no text.
        """
        return self.text(name, may_be_empty=True) if name in self.values else ""

    def one_of(self, name: str, accepted: tuple[str, ...]) -> str:
        """Return a field that is one of a few words.

        Raises:
            DataError: it is not.
        """
        value = self.text(name)
        if value not in accepted:
            raise self.wrong(name, repr(value[:40]), f"one of {', '.join(map(repr, accepted))}")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false.

        Raises:
            DataError: it is missing or not a boolean.
        """
        value = self._value(name)
        if not isinstance(value, bool):
            raise self.wrong(name, _typed(value), "true or false")
        return value

    def labels(self, name: str, kind: type) -> dict[str, Any]:
        """Return a field that maps names to values of exactly one type (so that `True` is no `int`).

        Raises:
            DataError: it is missing, empty, or not such an object.
        """
        value = self._value(name)
        if not isinstance(value, dict) or not value or any(type(item) is not kind for item in value.values()):
            raise self.wrong(name, _typed(value), f"an object with {kind.__name__} values, at least one")
        return value

    def json(self, name: str) -> Any:
        """Return a field as it stands.

        Raises:
            DataError: it is missing or cannot be written as JSON (a date or NaN from Parquet).
        """
        value = self._value(name)
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self.wrong(name, f"{_typed(value)} ({error})", "a value that JSON can hold") from error
        return value

    def wrong(self, name: str, found: str, expected: str) -> DataError:
        """Return the error for one field of this row."""
        return DataError(f"{self.where}: field {name!r}: found {found}; expected {expected}")

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise DataError(f"{self.where}: {_missing(name, list(self.values))}")
        value = self.values[name]
        if (half := half_character(value)) is not None:
            raise self.wrong(name, half, "valid Unicode text")
        return value


def _missing(name: str, columns: Sequence[str]) -> str:
    """Return the sentence on a column that a row lacks."""
    text = f"column {name!r} is missing; found {', '.join(map(repr, columns)) or 'none'}"
    if len(columns) == 1 and name in columns[0]:
        return f"{text}: one column, so its cells are separated by something else than a comma, semicolon, tab or |"
    near = difflib.get_close_matches(name, columns, n=1)
    return f"{text}. Did you mean {near[0]!r}?" if near else text


def half_character(value: Any) -> str | None:
    r"""Return where a JSON value holds half of a surrogate pair, which JSON can spell and UTF-8 cannot; None: nowhere.

    >>> half_character({"reference": ["whole", "cut \ud83d"]})
    'half a character'
    >>> half_character("cut \ud83d"), half_character("whole")
    ('half a character at position 4', None)
    """
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode("utf-8")
    except UnicodeEncodeError as error:
        return "half a character" + (f" at position {error.start}" if isinstance(value, str) else "")
    return None


Convert = Callable[..., Example | Sequence[Example] | None]
"""A row and options to its example or examples, None where an option leaves the row out; DataError for a bad row."""


def row_source(name: str, *, within: str | None = None) -> Callable[[Convert], Callable[..., ReadResult]]:
    """Return a decorator that makes a source of a function of one row; its keyword arguments are the options.

    The source raises ConfigError without a path, and DataError where a row is bad and `on_bad_row` is "error", or no
    example is left.

    Args:
        name: of the source, for messages.
        within: see `mocae.data.readers.read_rows`.
    """

    def decorate(convert: Convert) -> Callable[..., ReadResult]:
        @wraps(convert)
        def read(path: Path | None, *, axis: str, on_bad_row: OnBadRow = "error", **options: Any) -> ReadResult:
            if path is None:
                raise ConfigError(f"source {name!r} reads a file, but path is not set; give `path`")
            skipped: list[str] = []
            numbered = read_rows(path, skipped=skipped, within=within)
            rows = (_row(path, number, values, axis) for number, values in numbered)
            return examples_from(
                rows, lambda row: convert(row, **options), what=str(path), on_bad_row=on_bad_row, skipped=skipped
            )

        described = signature(convert)
        read.__signature__ = described.replace(parameters=list(described.parameters.values())[1:])  # type: ignore[attr-defined]
        return read

    return decorate


def _row(path: Path, number: int, values: dict[str, Any], axis: str) -> Row:
    at, short = place(path, number), "/".join(path.parts[-2:])
    return Row(values, f"{path}: {at}", f"{short}:{at.removeprefix('line ')}", axis)


def examples_from(
    rows: Iterator[Row],
    convert: Convert,
    *,
    what: str,
    on_bad_row: OnBadRow,
    skipped: list[str] | None = None,
) -> ReadResult:
    """Return the examples of any rows; `what` names their origin in messages, see `row_source`.

    Raises:
        BadRowError: rows are bad and `on_bad_row` is "error"; one line a kind of fault.
        DataError: no example is left.
    """
    messages = [] if skipped is None else skipped
    examples: list[Example] = []
    for row in rows:
        try:
            made = convert(row)
            made = [made] if isinstance(made, Example) else made or []
            for example in made:
                _refuse_equal_pair(row, example)
        except DataError as error:
            messages.append(str(error))
        else:
            examples += made
    if messages and on_bad_row == "error":
        raise BadRowError("\n".join(_kinds(messages)))
    if not examples:
        first = f"; the first of {len(messages)} bad rows: {messages[0]}" if messages else ""
        raise DataError(f"{what}: no row is left; expected at least one{first}")
    return ReadResult(examples, len(messages), messages)


def _kinds(messages: Sequence[str]) -> list[str]:
    """Return the first message of each kind of fault with the number of rows that have it too."""
    kinds: dict[str, list[str]] = {}
    for message in messages:
        kinds.setdefault(re.sub(r": (?:line|item|row) \d+: ", ": ", message, count=1), []).append(message)
    lines = [f"{same[0]}; {len(same) - 1} more rows alike" if same[1:] else same[0] for same in kinds.values()]
    rest = len(lines) - _MOST_KINDS
    return [*lines[:_MOST_KINDS], *([f"and {rest} more kinds of bad rows"] if rest > 0 else [])]


def rejected_of(example: Example) -> Any:
    """Return the response a pair does not want, None where the example is no pair."""
    return next((example.facts[key] for key in ("rejected", "unsafe") if key in example.facts), None)


def _refuse_equal_pair(row: Row, example: Example) -> None:
    rejected = rejected_of(example)
    if isinstance(rejected, str) and rejected.strip() == (example.response or "").strip():
        raise DataError(f"{row.where}: found the same response chosen and rejected; expected two that differ")


def _typed(value: Any) -> str:
    # The value itself may be harmful or private text; its type says what is wrong.
    return "null" if value is None else f"a value of type {type(value).__name__}"
