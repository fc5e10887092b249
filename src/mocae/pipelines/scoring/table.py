"""Rows of a file made elsewhere as columns of checked values, for `mocae score`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from mocae.axes import PROBES
from mocae.data.readers import place, read_rows
from mocae.data.rows import half_character
from mocae.errors import ConfigError, DataError, unknown_name
from mocae.pipelines.scoring.values import kind_of

__all__ = ["MISSING", "NumberedRow", "ScoreTable", "keep_rows", "read_table"]

T = TypeVar("T")
NumberedRow = tuple[int, dict[str, Any]]
"""A row of a file and its number."""

MISSING = frozenset({"", "nan", "none", "null"})
"""Words of text files (CSV) that stand for a value that is not there."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Rows of one file.

    Attributes:
        path: the file, for messages.
        rows: (number, values) of every row kept.
        renamed: name a metric uses -> column of the file, where they differ.
    """

    path: Path
    rows: Sequence[NumberedRow]
    renamed: Mapping[str, str]

    @property
    def of_samples(self) -> bool:
        """Whether the rows are judged answers to prompts of known kinds, as every command writes `samples.jsonl`."""
        rows = [row for _, row in self.rows]
        whole = all(
            isinstance(row.get("verdicts"), Mapping) and {"probe", "system", "axis"} <= row.keys() for row in rows
        )
        return whole and any(row["probe"] in PROBES for row in rows)

    def of_verdicts(self, name: str) -> bool:
        """Return whether a column holds the scores of a judge."""
        return any(self._place(row, name) is row.get("verdicts") for _, row in self.rows if self._found(row, name))

    def has(self, name: str) -> bool:
        """Return whether any row has the column."""
        return any(self._found(values, name) for _, values in self.rows)

    def column(
        self, name: str, read: Callable[[Any], T], *, text: bool = False, one_form: bool = False
    ) -> list[T | None]:
        """Return one value a row, None where the file says null or nothing.

        Args:
            name: of the value; the column may be called otherwise, see `renamed`. A sample of ours has verdicts and
                facts one level down: the score of `verdicts[name]`, and `facts[name]`, are found as well.
            read: a value that is there to what the metric needs; raises ValueError with what was expected.
            text: whether the column is free text, where "" and "none" are values.
            one_form: whether numbers beside true or false are refused; they are equal in Python, and not one thing.

        Raises:
            DataError: a row has no such column, or a value does not fit.
        """
        values: list[T | None] = []
        kinds: set[str] = set()
        for number, row in self.rows:
            if not self._found(row, name):
                raise DataError(
                    f"{self.path}: {place(self.path, number)}: {unknown_name('column', self._name(name), row)}"
                )
            value = self._value(row, name)
            if value is None or value != value or (not text and str(value).strip().lower() in MISSING):
                values.append(None)
                continue
            kinds |= {kind_of(value)} if one_form else set()
            try:
                if len(kinds) > 1:
                    raise ValueError("one form in the column: numbers, or true and false")
                if half_character(value) is not None:
                    raise ValueError("valid Unicode, not half a character")
                values.append(read(value))
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{self.path}: {place(self.path, number)}: column {self._name(name)!r}: got {_shown(value)}; "
                    f"expected {error}"
                ) from error
        return values

    def only(self, keep: Callable[[Mapping[str, Any]], bool]) -> ScoreTable:
        """Return the rows that `keep` accepts."""
        return ScoreTable(self.path, [(n, row) for n, row in self.rows if keep(row)], self.renamed)

    def duplicates(self, name: str) -> int:
        """Return how many rows repeat the text of an earlier one in a column; 0 where there is no such column."""
        texts = Counter(str(self._value(row, name)) for _, row in self.rows if self._found(row, name))
        return sum(count - 1 for count in texts.values())

    def _name(self, name: str) -> str:
        return self.renamed.get(name, name)

    def _found(self, row: Mapping[str, Any], name: str) -> bool:
        return self._place(row, name) is not None

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        held = self._place(row, name) or row
        value = held[self._name(name)]
        return value.get("score") if held is row.get("verdicts") and isinstance(value, Mapping) else value

    def _place(self, row: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
        """Return what of a row holds a value: the row, or the verdicts or facts of a sample."""
        places = (row, row.get("verdicts"), row.get("facts"))
        return next((held for held in places if isinstance(held, Mapping) and self._name(name) in held), None)


def read_table(path: Path, *, columns: Mapping[str, str], where: Sequence[str] = ()) -> ScoreTable:
    """Return the rows of a file that pass every filter.

    Args:
        path: JSON, JSONL, CSV or Parquet, also compressed (`mocae.data.read_rows`).
        columns: name a metric uses -> column of the file.
        where: filters, "column=pattern" or "column!=pattern", with * and ? in the pattern.

    Raises:
        DataError: the file cannot be read, has no rows, or no row is left.
        ConfigError: a filter that is none, or whose column no row has.
    """
    rows = list(read_rows(path))
    if not rows:
        raise DataError(f"{path}: the file has no rows; at least one is needed")
    return ScoreTable(path, keep_rows(rows, where, path), dict(columns))


def keep_rows(rows: Sequence[NumberedRow], where: Sequence[str], path: Path) -> Sequence[NumberedRow]:
    """Return the rows that pass every filter, see `read_table`.

    Raises:
        DataError: no row is left.
        ConfigError: a filter that is none, or whose column no row has.
    """
    for text in where:
        column, pattern, wanted = _filter(text)
        if not any(column in row for _, row in rows):
            raise ConfigError(f"--where {text}: {path}: {unknown_name('column', column, rows[0][1])}")
        rows = [(n, row) for n, row in rows if fnmatchcase(str(row.get(column)), pattern) is wanted]
        if not rows:
            raise DataError(f"{path}: no row is left after --where {text}; check the value")
    return rows


def _filter(text: str) -> tuple[str, str, bool]:
    column, _, pattern = text.partition("=")
    wanted = not column.endswith("!")
    column = column.removesuffix("!").strip()
    if not column or not pattern:
        raise ConfigError(f"--where {text!r}: not a filter. Accepted: column=value or column!=value, * for any text")
    return column, pattern.strip(), wanted


def _shown(value: Any) -> str:
    # Text of a file may be harmful or private; a short label is not.
    text = repr(value)
    return text if len(text) <= 24 else f"a value of type {type(value).__name__}"
