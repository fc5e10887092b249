"""The recipe of a build: what its file of prompts may hold."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mocae.bank import LoraWeights
from mocae.config import BaseConfig, Recipe
from mocae.errors import DataError, ModelMismatchError
from mocae.pipelines.build import build_recipe
from mocae.stages.brought import refuse_another_base
from mocae.stages.rows import read_rows_of

ROWS = [{"prompt": f"Who is {n}?", "axis": "honesty", "probe": "question", "facts": {}} for n in range(40)]


def recipe(folder: Path, lines: list[str], **options: Any) -> Recipe:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    judges = [{"judge": "refusal"}]
    return build_recipe(base="pocket", experts={"honesty": "here"}, calibration=path, judges=judges, **options)


def test_a_row_that_cannot_be_read_stops_a_build_or_is_left_out(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    assert len([*read_rows_of(recipe(tmp_path, lines)).calibration["honesty"]]) > 20
    lines[2] = lines[2][:-5]
    with pytest.raises(DataError, match=r"prompts\.jsonl: line 3"):
        recipe(tmp_path, lines)
    rows = read_rows_of(recipe(tmp_path, lines, on_bad_row="skip"))
    assert len(rows.calibration["honesty"]) + len(rows.test["honesty"]) == 39
    assert rows.n_skipped > 0


def test_a_row_of_an_expert_that_is_not_there_stops_a_build(tmp_path: Path) -> None:
    lines = [json.dumps(row | {"axis": "kindness"} if n == 5 else row) for n, row in enumerate(ROWS)]
    with pytest.raises(DataError, match=r"row 6: field 'axis': unknown expert 'kindness'"):
        recipe(tmp_path, lines, on_bad_row="skip")
    with pytest.raises(DataError, match=r"7 rows of axis 'honesty'; the router needs at least 8"):
        recipe(tmp_path, [json.dumps(row) for row in ROWS[:7]])


@pytest.mark.parametrize(
    ("base", "trained_on", "known_as", "taken"),
    [
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", (), True),
        ("/models/Llama-2-7b-hf", "meta-llama/llama-2-7B-hf", (), True),
        ("meta-llama/Llama-2-7b-hf", "~/Llama-2-7b-hf/", (), True),
        ("meta-llama/Llama-2-7b-hf", None, (), True),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf", (), False),
        ("pocket", "meta-llama/Llama-2-7b-hf", (), False),
        ("meta-llama/Llama-2-7b-hf", "unsloth/llama-2-7b-bnb-4bit", (), False),
        ("meta-llama/Llama-2-7b-hf", "unsloth/llama-2-7b-bnb-4bit", ("unsloth/llama-2-7b-bnb-4bit",), True),
    ],
)
def test_an_adapter_that_names_another_base_model_is_refused_even_if_it_fits(
    base: str, trained_on: str | None, known_as: tuple[str, ...], *, taken: bool
) -> None:
    expert = LoraWeights("kind", 2, 4, use_rslora=False, base_model=trained_on, layers={})
    refused = (
        nullcontext() if taken else pytest.raises(ModelMismatchError, match=f"trained on '{trained_on}'.*base.known_as")
    )
    with refused:
        refuse_another_base(expert, BaseConfig(model=base, known_as=known_as))
