"""A run killed at random moments ends as one that nobody killed; the kills are made in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "kill_for_tests.py"


def killed(*words: str) -> list[list[str]]:
    """Return the table the script prints, a row of cells a kill; it fails unless every run ended the same."""
    command = [sys.executable, str(SCRIPT), *words]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # as many sums in the same order, and no threads to fork
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended the same" in done.stdout
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return rows[2:]


def test_two_kills_change_nothing() -> None:
    assert [row[5] for row in killed("--short", "--kills", "2", "--seed", "1")] == ["0"] * 2


@pytest.mark.slow
def test_twenty_kills_over_all_stages_change_nothing() -> None:
    rows = killed("--kills", "20")
    assert [row[5] for row in rows] == ["0"] * 20
    assert {"answers", "features", "outcomes", "router"} <= {row[1].partition("/")[0] for row in rows}
