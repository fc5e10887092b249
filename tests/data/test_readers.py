from __future__ import annotations

import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mocae.data import read_rows
from mocae.data.readers import place
from mocae.errors import DataError

ROWS = [{"a": "one", "b": "é"}, {"a": "two, three", "b": 'line\n"quoted"'}]


def _json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, ensure_ascii=False).encode()


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def _csv(rows: list[dict[str, Any]]) -> bytes:
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in row.values()) for row in rows]
    return "\n".join(["a,b", *quoted]).encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".xz": lzma.compress, ".gz": gzip.compress}


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_and_compression_reads_the_same_rows(tmp_path: Path, ending: str, compression: str) -> None:
    path = tmp_path / f"rows{ending}{compression}"
    path.write_bytes(COMPRESS[compression](WRITERS[ending](ROWS)))
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_byte_order_mark_is_no_part_of_the_first_field(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + WRITERS[ending](ROWS))
    assert [row for _, row in read_rows(path)] == ROWS


def test_rows_are_numbered_by_the_line_they_begin_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"x\ny"\n\n2,z\n')
    assert [number for number, _ in read_rows(path)] == [2, 5]
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [number for number, _ in read_rows(path)] == [2, 4]


@pytest.mark.parametrize(("name", "words"), [("a.json.gz", "item 7"), ("a.CSV", "line 7"), ("a.parquet", "row 7")])
def test_place_names_what_is_counted(name: str, words: str) -> None:
    assert place(Path(name), 7) == words


def test_a_file_that_is_not_there_is_no_matter_of_its_ending(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nofile: no such file; expected a data file ending in \.json"):
        list(read_rows(tmp_path / "nofile"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\xff\n', r"a.jsonl: line 2: byte 0xff is not UTF-8; expected UTF-8"),
        ("a.json", '[{"a": 1}]'.encode("utf-16"), r"a.json: begins with the byte order mark of UTF-16"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": \n',
            r"a.jsonl: line 2: not JSON \(Expecting value\); expected one object a line",
        ),
        ("a.jsonl", b"[1]", r"a.jsonl: line 1: found a list; expected one object a line"),
        ("a.jsonl", b'{"a": NaN}', r"a.jsonl: line 1: not JSON \(NaN is no JSON value\)"),
        ("a.jsonl", b"[" * 100_000, r"a.jsonl: line 1: not JSON"),
        ("a.json", b'{"rows": []}', r"a.json: found an object at the top; expected a list of objects"),
        ("a.json", b'[\n{"a": 1},\n]', r"a.json: line 3: not JSON"),
        (
            "a.json",
            b'{"a": 1}\n{"a": 2}',
            r"a.json: line 2: not JSON \(Extra data\).*one object a line is called .jsonl",
        ),
        ("a.json", b'[{"a": 1}, true]', r"a.json: item 2: found a boolean; expected an object"),
        ("a.csv", b"a,b\n1,2\n3\n", r"a.csv: line 3: found 1 cells; expected 2, one for each column"),
        ("a.csv", b"a,a\n1,2\n", r"a.csv: line 1: column 'a' is there twice"),
        ("a.csv", b'a,b\n1,"2\n', r"a.csv: line 2: not CSV \(unexpected end of data\)"),
        ("a.jsonl.xz", b"plain", r"a.jsonl.xz: does not decompress .*damaged or not .xz"),
        ("a.jsonl.gz", b"plain", r"a.jsonl.gz: does not decompress .*damaged or not .gz"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9], r"a.jsonl.gz: does not decompress"),
        ("a.parquet", b"plain", r"a.parquet: not Parquet"),
        (
            "a.txt",
            b"",
            r"a.txt: unknown ending '.txt'; expected a data file ending in .json, .jsonl, .csv, .tsv, .parquet",
        ),
        ("a.zip.xz", b"", r"a.zip.xz: unknown ending"),
    ],
)
def test_wrong_files_say_where_and_what_was_expected(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(path))


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no.csv: no such file; expected a data file"):
        list(read_rows(tmp_path / "no.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder.csv: a folder; expected a data file"):
        list(read_rows(tmp_path / "folder.csv"))


def test_bad_rows_can_be_skipped_but_not_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{\n[]\n{"a": 2}\n')
    skipped: list[str] = []
    assert [row["a"] for _, row in read_rows(path, skipped=skipped)] == [1, 2]
    assert [message.split(": ")[1] for message in skipped] == ["line 2", "line 3"]
    path.write_bytes(b'{"a": 1}\n\xff')
    with pytest.raises(DataError, match="line 2: byte 0xff"):
        list(read_rows(path, skipped=[]))


def test_a_csv_row_that_cannot_be_read_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "x" * 131_073
    path.write_text(f'a,b\n1,{long[1:]}\n2,"{long}"\n3,"bad" quote\n4,"two\nlines"\n')
    skipped: list[str] = []
    assert [row["a"] for _, row in read_rows(path, skipped=skipped)] == ["1", "4"]
    assert "line 3: column 'b' has 131,073 characters; expected at most 131,072" in skipped[0]
    assert "line 4: not CSV" in skipped[1]
    with pytest.raises(DataError, match=r"a.csv: line 3: column 'b' has 131,073 characters"):
        list(read_rows(path))
    path.write_text('a,b\n1,2\n3,"never closed\n5,6\n')  # what else is in the cell would be lost in silence
    with pytest.raises(DataError, match=r"line 3: not CSV \(unexpected end of data\)"):
        list(read_rows(path, skipped=[]))


@pytest.mark.parametrize("name", ["a.jsonl.xz", "a.json.gz", "a.csv.gz"])
def test_a_small_file_that_holds_far_more_is_refused_on_the_way(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mocae.data.readers._FREE_BYTES", 2**20)
    path = tmp_path / name
    path.write_bytes(COMPRESS[path.suffix](b" " * 2**25))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{name}: holds more than \d+ MiB once decompressed, over 200 times its own"):
        list(read_rows(path))
    assert tracemalloc.get_traced_memory()[1] < 2**24  # xz itself takes 2**23
    tracemalloc.stop()
