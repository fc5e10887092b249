from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{"preference": p} for p in (2, 2, 1, 0, None)]), encoding="utf-8")
    return path


def test_score_prints_rates_in_percent(command: Command, annotations: Path) -> None:
    code, out, err = command("score", "win-rate", str(annotations))
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines == [
        "win rate 62.50 %",
        "standard error 23.94 %",
        "discrete win rate 62.50 %",
        "n wins 2",
        "n losses 1",
        "n draws 1",
        "scored 4",
        "unscored 1",
    ]


def test_score_json_holds_fractions(command: Command, annotations: Path) -> None:
    code, out, _ = command("score", "win-rate", str(annotations), "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["metric"], found["file"], found["values"]["win_rate"]) == ("win-rate", "annotations.json", 0.625)
    assert (found["n"], found["n_unscored"]) == (4, 1)


def test_score_names_what_is_wrong(command: Command, annotations: Path) -> None:
    assert command("score", "win", str(annotations))[0] == 2
    code, _, err = command("score", "rate", str(annotations), "--column", "verdict")
    assert (code, err.startswith("error: --column 'verdict': not of the form NAME=COLUMN")) == (2, True)
    assert command("score", "rate", str(annotations.with_name("none.json")))[0] == 1
