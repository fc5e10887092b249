from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from typer.main import get_command

from mocae.cli.app import app
from mocae.errors import ArtifactError
from mocae.report import card_text


def test_the_command_to_reproduce_is_one(report: dict[str, Any], page: str) -> None:
    for text in (card_text(report), page):
        told = re.search(r"^(?:<pre><code>)?mocae (run [^<\n]*)", text, flags=re.MULTILINE)
        assert told
        command, *words = told[1].split()
        get_command(app).commands[command].make_context(command, words)  # type: ignore[attr-defined]


def test_the_front_matter_is_what_hubs_read(report: dict[str, Any]) -> None:
    report["recipe"]["axes"][0]["name"] = "Being Helpful: always"
    _, front, _ = card_text(report).split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "pocket",
        "library_name": "mocae",
        "pipeline_tag": "text-generation",
        "tags": [
            "mocae",
            "lora",
            "mixture-of-experts",
            "alignment",
            "being-helpful-always",
            "harmlessness",
            "honesty",
        ],
    }


def test_the_card_says_the_result_its_labels_and_how_to_load(report: dict[str, Any]) -> None:
    card = card_text(report)
    assert 'model = mocae.load("path/to/this/folder")' in card
    assert "alignx answers best: 94.0 %" in card
    assert "- Can routing matter? Yes (go)." in card
    assert "- **Believe it?** With care: synthetic, tiny model; " in card
    assert card.index("> **Note:** synthetic, tiny model") < card.index("## Result")
    assert "Read with this in mind: synthetic, tiny model." in card
    assert "- Judge words: not checked against labelled answers." in card
    assert "- Judge verifier: looked up; verdicts unscored: 3." in card


def test_every_row_of_the_table_has_every_column(report: dict[str, Any]) -> None:
    report["systems"]["odd|na\nme <b>"] = report["systems"]["base"]
    rows = [line for line in card_text(report).split("## Load it")[0].splitlines() if line.startswith("|")]
    columns = {line.replace("\\|", "").count("|") for line in rows}
    assert len(rows) == 2 + 6
    assert len(columns) == 1
    assert "odd\\|na me \\<b\\>" in "".join(rows)


def test_absent_sections_leave_a_card(report: dict[str, Any]) -> None:
    bare = {key: report[key] for key in ("schema", "recipe", "systems")}
    card = card_text(bare)
    assert "**Note:**" not in card
    assert "The report names no judges" in card


def test_a_report_of_another_version_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="schema: got 9"):
        card_text(report | {"schema": 9})
