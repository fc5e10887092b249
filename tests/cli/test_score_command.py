from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mocae.metrics import METRICS

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


OWN = """
from mocae.metrics import Metric

SPREAD = Metric(
    name="spread", label="spread", text="Largest score minus the smallest.", higher_is_better=False, unit="number",
    columns=("score", "weight"), compute=lambda scores, weights: max(scores) - min(scores) + 0 * sum(weights),
)
"""


def test_a_metric_of_an_installed_package_is_listed_and_computed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "own-1.0.dist-info").mkdir(parents=True)
    (site / "own_metric.py").write_text(OWN, encoding="utf-8")
    (site / "own-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (site / "own-1.0.dist-info" / "entry_points.txt").write_text(
        "[mocae.metrics]\nspread = own_metric:SPREAD\nbroken = own_metric:NOTHING\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(METRICS, "_loaded", dict(METRICS._loaded))
    rows = tmp_path / "rows.csv"
    rows.write_text("points,weight\n0.25,1\n1.5,1\n0.75,2\n,3\n", encoding="utf-8")
    code, out, _ = command("score", "spread", str(rows), "--column", "score=points")
    assert (code, [line.split() for line in out.splitlines()]) == (
        0,
        [["spread", "1.2500"], ["scored", "3"], ["unscored", "1"]],
    )
    listed = json.loads(command("ls", "metrics", "--json")[1])
    assert listed["spread"] == "Largest score minus the smallest. (number, lower is better; of columns score, weight)"
    assert listed["broken"].startswith("from own_metric:NOTHING")
    code, _, err = command("score", "broken", str(rows))
    assert (code, "metric 'broken' (own_metric:NOTHING) does not load" in err) == (2, True)
    rows.write_text("score,weight\n,1\n", encoding="utf-8")
    code, _, err = command("score", "spread", str(rows))
    assert (code, "none of 1 rows has all of score, weight" in err) == (1, True)
