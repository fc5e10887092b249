"""Report in, two files out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mocae.files import write_whole
from mocae.report.card import card_text
from mocae.report.html import html_page
from mocae.types import Sample

__all__ = ["write_report"]


def write_report(report: Mapping[str, Any], folder: Path, samples: Sequence[Sample] = ()) -> Path:
    """Return the path of `report.html`, written to `folder` beside the model card `README.md`.

    Both texts are made before the first file is touched: a report that cannot be drawn leaves the folder as it was.

    Args:
        report: the content of `report.json`, schema version 1.
        folder: an existing artifact folder.
        samples: every judged answer, for the page to search.

    Raises:
        ArtifactError: another schema version, a missing key, or no such folder.
    """
    page, card = html_page(report, samples), card_text(report)
    write_whole(Path(folder) / "README.md", card)
    return write_whole(Path(folder) / "report.html", page)
