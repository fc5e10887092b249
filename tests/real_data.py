"""Where public data lies, for tests that check the project on it; they are skipped where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(relative: str) -> Path:
    """Return a file under MOCAE_DATA_ROOT (or ../shared/data), or skip the test."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("MOCAE_DATA_ROOT", default)) / relative
    if not path.is_file():
        pytest.skip(f"no {relative}; set MOCAE_DATA_ROOT")
    return path
