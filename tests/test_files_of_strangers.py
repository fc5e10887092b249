"""Files nobody vouches for: what is no plain file is never read, what is no record is told by its place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import PositiveInt
from safetensors.torch import save_file

from mocae import files
from mocae.errors import ArtifactError
from mocae.files import (
    Record,
    digest,
    inside,
    parse_json,
    plain_files,
    read_json,
    read_lines,
    read_record,
    read_tensors,
)


class Row(Record):
    n: PositiveInt
    share: float = 0.0


ODD: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a file": lambda path: path.symlink_to(__file__),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("read", [read_json, read_tensors, digest, lambda p: list(read_lines(p, Row))])
def test_what_is_no_plain_file_is_refused_and_never_read(
    tmp_path: Path, kind: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.json"
    ODD[kind](path)
    with pytest.raises(ArtifactError, match=r"a\.json: (no plain file|a link|cannot be read)"):
        read(path)


def test_a_link_is_followed_where_the_hubs_cache_has_them_but_never_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text('{"n": 1}')
    (tmp_path / "a.json").symlink_to("blob")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    assert read_record(tmp_path / "a.json", Row, links=True).n == 1
    with pytest.raises(ArtifactError, match="no plain file"):
        read_json(tmp_path / "zero.json", links=True)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'"\\ud800"', b'{"a": "\\udc00"}', b"NaN", b"[Infinity]", b"[1e999]"),
        *(b'{"a": 1, "a": 2}', b"[" * 1000 + b"]" * 1000, b"1" * 5000, b"[1] 2"),
    ],
)
def test_what_json_readers_do_not_agree_on_is_no_json(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ArtifactError, match=r"a\.json: damaged \(not JSON: "):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_bytes(b'{"n": 1}\n' + text + b"\n")
    with pytest.raises(ArtifactError, match=r"a\.jsonl:2: damaged \(not JSON: "):
        list(read_lines(tmp_path / "a.jsonl", Row))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[]", "the whole"),
        ("{}", "n: "),
        ('{"n": 2.5}', "n: "),
        ('{"n": true}', "n: "),
        ('{"n": 1, "share": "x"}', "share"),
    ],
)
def test_a_record_of_another_shape_is_told_by_its_place(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match=rf"a\.json: damaged \({where}.*; ask Ada"):
        read_record(tmp_path / "a.json", Row, remedy="ask Ada")


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 100)
    (tmp_path / "a.json").write_bytes(b"[" + b" " * 100 + b"]")
    with pytest.raises(ArtifactError, match="more than 0 MiB"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ArtifactError, match=r"a\.json:1: damaged"):
        list(read_lines(tmp_path / "a.json", Row))


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../../b", "a\\b", "a\0b", "a" * 300, "a/" * 600, "link", "link/a"]
)
def test_a_name_stays_inside(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(ArtifactError, match=r"names .*put a plain file or folder in its place"):
        inside(tmp_path, name)


def test_a_folder_of_plain_files_is_listed_and_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    (tmp_path / "c").touch()
    assert plain_files(tmp_path) == ["a/b", "c"]
    (tmp_path / "a" / "link").symlink_to("b")
    with pytest.raises(ArtifactError, match=r"a/link: a link; a folder holds plain files alone"):
        plain_files(tmp_path)
    (tmp_path / "a" / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match=r"pipe: a device, socket or FIFO"):
        plain_files(tmp_path)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.complex64])
def test_numbers_nothing_is_computed_with_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    save_file({"a": torch.zeros(2).to(kind)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match=r"'a' is (float8_e4m3fn|complex64); write it as bfloat16"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000000000]}}',
        b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296, 4294967296], "data_offsets": [0, 4]}}',
        b"{" * 50,
        b"[]",
    ],
)
@pytest.mark.parametrize("length", [None, 0, 2**40, 2**64 - 1])
def test_a_header_that_lies_is_refused(tmp_path: Path, header: bytes, length: int | None) -> None:
    size = len(header) if length is None else length
    (tmp_path / "a.safetensors").write_bytes(size.to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ArtifactError, match=r"a\.safetensors: damaged"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_digest_is_computed_once_and_again_when_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = digest(path)
    path.write_bytes(b"two")  # the same size, so soon that clocks may not tell
    assert digest(path) != first
    time.sleep(0.15)
    second = digest(path)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert digest(path) == second
