from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mocae.errors import ArtifactError
from mocae.files import write_whole


def test_a_file_is_written_as_it_is(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "a.txt", "größer\nzwei\n")
    assert path.read_bytes() == "größer\nzwei\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone: no such folder; a\.txt is written into an existing"):
        write_whole(tmp_path / "gone" / "a.txt", "x")


def test_half_a_surrogate_pair_does_not_cost_the_file(tmp_path: Path) -> None:
    assert write_whole(tmp_path / "a.txt", "bad \ud800 letter\n").read_bytes() == b"bad ? letter\n"


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, call: str
) -> None:
    path = write_whole(tmp_path / "report.json", "old")
    monkeypatch.setattr(owner, call, _full)
    with pytest.raises(ArtifactError, match=r"report\.json: could not be written \(No space left on device\); free"):
        write_whole(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text(encoding="utf-8") == "old"
