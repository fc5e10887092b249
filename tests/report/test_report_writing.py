from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mocae.errors import ArtifactError
from mocae.report import card_text, write_report


def test_both_files_are_written_and_nothing_else(report: dict[str, Any], page: str, tmp_path: Path) -> None:
    assert write_report(report, tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == card_text(report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "report.html"]


def test_a_report_that_cannot_be_drawn_leaves_the_folder_as_it_was(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    del report["systems"]
    with pytest.raises(ArtifactError, match="systems: Field required"):
        write_report(report, tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]
