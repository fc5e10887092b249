"""Rows of JSON, JSONL, CSV and Parquet files, plain or compressed, each with the place it came from.

A file is read as UTF-8 and nothing is guessed but what separates the cells of a table: a wrong byte, a broken line or
another type at the top raises with the file and the line. The first rows come before the last are read (JSON lists
excepted).
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, NoReturn

from mocae.errors import ConfigError, DataError

__all__ = ["ENDINGS", "BadRowError", "place", "read_rows"]

_COMPRESSION: dict[str, Callable[[Path], BufferedIOBase]] = {
    ".xz": lzma.LZMAFile,
    ".gz": gzip.GzipFile,
}
_FREE_BYTES, _LARGEST_RATIO = 64 * 2**20, 200
"""A compressed file may hold so many bytes, or so many times its own: text shrinks tenfold, rarely fiftyfold."""
_LONGEST_CELL = 131_072
"""Characters of a CSV cell, as the csv module has it: a longer one is most often a quote that is never closed."""
_DELIMITERS = ",;\t|"
_HEAD = 20
"""Lines from which it is read what separates cells."""
_BYTE_ORDER_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_DAMAGED = (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError)


class BadRowError(DataError):
    """One row cannot be used; the others may be."""


Rows = Iterator[tuple[int, dict[str, Any]]]


def read_rows(path: Path, *, skipped: list[str] | None = None, within: str | None = None) -> Rows:
    """Yield (number, row) for every row of a file, in the file's order.

    Args:
        path: .json (a list of objects), .jsonl (an object a line), .csv or .tsv (first line: column names; cells
            separated by comma, semicolon, tab or |) or .parquet, each also with .xz or .gz behind it.
        skipped: None: a row that cannot be read raises. A list: its message is appended there, and reading goes on.
            Only single rows can be skipped, not a file that is damaged or of another kind.
        within: key of the list in a .json file that is an object; None: the list is the file.

    `number` counts from 1: the line the row begins at for JSONL and CSV, the item for JSON, the row for Parquet;
    `place` puts it into words.

    Raises:
        DataError: no such file, an unknown ending, compression that is damaged or hides far more than a file of its
            size holds, bytes that are not UTF-8, another type at the top, or a row that cannot be read.
        ConfigError: Parquet without pyarrow installed.
    """
    if not path.is_file():
        problem = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {problem}; expected a data file ending in {ENDINGS}")
    ending = _ending(path)
    if within is not None and ending != ".json":
        raise DataError(f"{path}: ends in {ending}; expected .json, an object whose {within!r} is a list of objects")
    try:
        yield from _FORMATS[ending](path, skipped) if within is None else _json(path, skipped, within)
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
    return path.open("rb") if decompress is None else BufferedReader(_Bounded(path, decompress(path)))


class _Bounded(RawIOBase):
    """What a compressed file holds, refused where it is too much for the file's size."""

    def __init__(self, path: Path, stream: BufferedIOBase) -> None:
        self._path, self._stream = path, stream
        self._left = self._most = max(_FREE_BYTES, _LARGEST_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        n = self._stream.readinto(buffer)
        self._left -= n
        if self._left < 0:
            raise DataError(
                f"{self._path}: holds more than {self._most >> 20} MiB once decompressed, over {_LARGEST_RATIO} times "
                "its own size; expected compressed text. If it is meant so, decompress it and give the plain file"
            )
        return n

    def close(self) -> None:
        self._stream.close()
        super().close()


def _text_lines(path: Path) -> Iterator[str]:
    """Yield decoded lines with their line ends, the byte order mark removed."""
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                for mark, encoding in _BYTE_ORDER_MARKS.items():
                    if line.startswith(mark):
                        raise DataError(
                            f"{path}: begins with the byte order mark of {encoding}; expected UTF-8 text, save the "
                            "file as UTF-8"
                        )
                while line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}: line {number}: byte 0x{line[error.start]:02x} is not UTF-8; expected UTF-8 text, "
                    "save the file as UTF-8"
                ) from error


def _json(path: Path, skipped: list[str] | None, within: str | None = None) -> Rows:
    expected = "a list of objects" if within is None else f"an object whose {within!r} is a list of objects"
    try:
        loaded = _parse("".join(_text_lines(path)))
    except json.JSONDecodeError as error:
        hint = "; one object a line is called .jsonl here" if error.msg == "Extra data" else ""
        raise DataError(f"{path}: line {error.lineno}: not JSON ({error.msg}); expected {expected}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected {expected}") from error
    if within is not None and isinstance(loaded, dict) and within in loaded:
        loaded = loaded[within]
    elif within is not None:
        raise DataError(f"{path}: found {_kind(loaded)} without {within!r}; expected {expected}")
    if not isinstance(loaded, list):
        raise DataError(f"{path}: found {_kind(loaded)} at the top; expected {expected}")
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
    # The module's limit is the process's: past it nothing of the file could be read, so it is raised and kept here.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    lines = _text_lines(path)
    head = list(itertools.islice(lines, _HEAD))
    reader = csv.reader(itertools.chain(head, lines), delimiter=_delimiter(head), strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1  # a quoted cell may span lines: name the first
        try:
            cells = next(reader, None)
        except csv.Error as error:
            message = f"{path}: line {number}: not CSV ({error}); expected cells quoted as in RFC 4180"
            if header is None or "end of data" in str(error):  # the file ends in the cell: what else is in it is lost
                raise DataError(message) from error
            _bad_row(message, skipped)
            continue
        if cells is None:
            return
        if header is None:
            _check_header(path, cells)
            header = cells
        elif cells and (wrong := _wrong_cells(cells, header)):
            _bad_row(f"{path}: line {number}: {wrong}", skipped)
        elif cells:
            yield number, dict(zip(header, cells, strict=True))


def _delimiter(head: list[str]) -> str:
    """Return what separates cells: the first of `_DELIMITERS` by which most lines have as many as the header."""
    for delimiter in _DELIMITERS:
        rows = [len(cells) for cells in csv.reader(head, delimiter=delimiter) if cells]
        if rows and rows[0] > 1 and 2 * rows.count(rows[0]) > len(rows):
            return delimiter
    return _DELIMITERS[0]


def _wrong_cells(cells: list[str], header: list[str]) -> str | None:
    if len(cells) != len(header):
        return f"found {len(cells)} cells; expected {len(header)}, one for each column of line 1"
    for name, cell in zip(header, cells, strict=True):
        if len(cell) > _LONGEST_CELL:
            return f"column {name!r} has {len(cell):,} characters; expected at most {_LONGEST_CELL:,}; close its quote"
    return None


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
    ".tsv": _csv,
    ".parquet": _parquet,
}
ENDINGS = f"{', '.join(_FORMATS)}, each also with {' or '.join(_COMPRESSION)}"
"""Endings of data files, in words."""
