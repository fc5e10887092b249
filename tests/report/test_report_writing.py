from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.report import card_text, write_report
from mocae.report.files import write_text


def test_both_files_are_written_and_nothing_else(report: dict[str, Any], page: str, tmp_path: Path) -> None:
    assert write_report(report, tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card_text(report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "report.html"]


def test_a_report_that_cannot_be_drawn_leaves_the_folder_as_it_was(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    del report["systems"]
    with pytest.raises(ArtifactError, match="systems: got None"):
        write_report(report, tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gone: no such folder; a\.txt is written into an existing"):
        write_text(tmp_path / "gone" / "a.txt", "x")


def test_half_a_surrogate_pair_does_not_cost_the_report(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "bad \ud800 letter\n")
    assert path.read_bytes() == b"bad ? letter\n"


def test_writing_replaces_and_leaves_no_unfinished_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(ArtifactError, match=r"a\.txt: could not be written \(disk full\); free space"):
        write_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]
