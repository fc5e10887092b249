"""Rows of JSON, JSONL, CSV and Parquet files, plain or compressed, each with the place it came from.

A file is read as UTF-8 and nothing is guessed: a wrong byte, a broken line or another type at the top raises with
the file and the line. The first rows come before the last are read (JSON lists excepted).
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn

from mocae.errors import ConfigError, DataError

__all__ = ["ENDINGS", "BadRowError", "place", "read_rows"]

_COMPRESSION: dict[str, Callable[[Path], BufferedIOBase]] = {
    ".xz": lzma.LZMAFile,
    ".gz": gzip.GzipFile,
}
_DAMAGED = (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError)


class BadRowError(DataError):
    """One row cannot be used; the others may be."""


Rows = Iterator[tuple[int, dict[str, Any]]]


def read_rows(path: Path, *, skipped: list[str] | None = None) -> Rows:
    """Yield (number, row) for every row of a file, in the file's order.

    Args:
        path: .json (a list of objects), .jsonl (an object a line), .csv (first line: column names) or .parquet,
            each also with .xz or .gz behind it.
        skipped: None: a row that cannot be read raises. A list: its message is appended there, and reading goes on.
            Only single rows can be skipped, not a file that is damaged or of another kind.

    `number` counts from 1: the line the row begins at for JSONL and CSV, the item for JSON, the row for Parquet;
    `place` puts it into words.

    Raises:
        DataError: no such file, an unknown ending, damaged compression, bytes that are not UTF-8, another type at the
            top, or a row that cannot be read.
        ConfigError: Parquet without pyarrow installed.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {found}; expected a data file ending in {ENDINGS}")
    reader = _FORMATS[_ending(path)]
    try:
        yield from reader(path, skipped)
    except _DAMAGED as error:
        raise DataError(f"{path}: does not decompress ({error}); the file is damaged or not {path.suffix}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def place(path: Path, number: int) -> str:
    """Return the words for a row's place: "line 3", "item 3" or "row 3".

    >>> place(Path("a.json.xz"), 3)
    'item 3'
    """
    word = {".json": "item", ".parquet": "row"}.get(_ending(path), "line")
    return f"{word} {number}"


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSION:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in _FORMATS:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected a data file ending in {ENDINGS}")
    return suffixes[-1]


def _open(path: Path) -> BufferedIOBase:
    decompress = _COMPRESSION.get(path.suffix.lower())
    return path.open("rb") if decompress is None else decompress(path)


def _text_lines(path: Path) -> Iterator[str]:
    """Yield decoded lines with their line ends, the byte order mark removed."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: line {number}: byte 0x{line[error.start]:02x} is not UTF-8; expected UTF-8 text, "
                    "save the file as UTF-8"
                ) from error


def _json(path: Path, skipped: list[str] | None) -> Rows:
    try:
        loaded = _parse("".join(_text_lines(path)))
    except json.JSONDecodeError as error:
        hint = "; one object a line is called .jsonl here" if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}: line {error.lineno}: not JSON ({error.msg}); expected a list of objects{hint}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected a list of objects") from error
    if not isinstance(loaded, list):
        raise DataError(f"{path}: found {_kind(loaded)} at the top; expected a list of objects")
    for number, item in enumerate(loaded, start=1):
        if isinstance(item, dict):
            yield number, item
        else:
            _bad_row(f"{path}: item {number}: found {_kind(item)}; expected an object", skipped)


def _jsonl(path: Path, skipped: list[str] | None) -> Rows:
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            item = _parse(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            _bad_row(f"{path}: line {number}: not JSON ({reason}); expected one object a line", skipped)
            continue
        if isinstance(item, dict):
            yield number, item
        else:
            _bad_row(f"{path}: line {number}: found {_kind(item)}; expected one object a line", skipped)


def _csv(path: Path, skipped: list[str] | None) -> Rows:
    reader = csv.reader(_text_lines(path), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        _check_header(path, header)
        begins = reader.line_num + 1
        for cells in reader:
            number, begins = begins, reader.line_num + 1  # a quoted cell may span lines: name the first
            if len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            elif cells:
                found = f"found {len(cells)} cells; expected {len(header)}, one for each column of line 1"
                _bad_row(f"{path}: line {number}: {found}", skipped)
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num}: not CSV ({error}); expected cells quoted as in RFC 4180"
        ) from error


def _check_header(path: Path, header: list[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise DataError(
                f"{path}: line 1: column {name!r} is there twice; expected a different name for each column"
            )


def _parquet(path: Path, skipped: list[str] | None) -> Rows:
    try:
        from pyarrow import ArrowException  # type: ignore[import-untyped, unused-ignore]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow: pip install 'mocae[train]'") from error
    with _open(path) as stream:
        try:
            number = 0
            for batch in ParquetFile(stream).iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except ArrowException as error:
            raise DataError(f"{path}: not Parquet ({error}); expected a Parquet file") from error


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _bad_row(message: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise BadRowError(message)
    skipped.append(message)


_FORMATS: dict[str, Callable[[Path, list[str] | None], Rows]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
ENDINGS = f"{', '.join(_FORMATS)}, each also with {' or '.join(_COMPRESSION)}"
"""Endings of data files, in words."""
