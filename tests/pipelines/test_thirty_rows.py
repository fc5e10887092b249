"""A user with thirty rows and two axes of their own gets an insight, or is told why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mocae.config import parse_recipe
from mocae.pipelines.run import run
from run_for_tests import tiny_base


def _source(axis: str, low: float, high: float) -> dict[str, Any]:
    columns = {"prompt": "question", "response": "answer"}
    options = {"columns": columns, "probe": "task", "facts": {"reference": "answer"}}
    return {"source": "table", "path": f"{axis}.csv", "hash_range": [low, high], "options": options}


def test_a_run_on_thirty_rows_ends_with_a_report_that_says_what_it_cannot_show(tmp_path: Path) -> None:
    axes = []
    for name in ("concise", "polite"):
        rows = [f"What is {name} thing {i}?,It is {i}" for i in range(15)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["question,answer", *rows, ""]), encoding="utf-8")
        splits = {"train": (0.0, 0.6), "calibration": (0.6, 0.8), "test": (0.8, 1.0)}
        axes.append({"name": name, "injection": f"Be {name}.", **{k: _source(name, *v) for k, v in splits.items()}})
    recipe = parse_recipe(
        {
            "name": "mine",
            "base": {"model": str(tiny_base(tmp_path / "base")), "dtype": "fp32", "device": "cpu"},
            "prompt_format": "plain",
            "data_root": str(tmp_path),
            "axes": axes,
            "experts": {"r": 2, "from_layer": 1, "max_length": 200, "optimizer": {"epochs": 1.0}},
            "generation": {"max_new_tokens": 4},
            "judges": [{"judge": "reference-match"}],  # a random model is never right: nothing for a router to learn
            "systems": ["base", "alignx", "joint"],
            "report": {"resamples": 50},
        }
    )
    report = run(recipe, out=tmp_path / "out", progress=False).report
    few = [note.partition(": ")[0] for note in report["notes"] if "few prompts (" in note]
    assert few == [f"axes.{axis}.{split}" for split in ("calibration", "test") for axis in ("concise", "polite")]
    assert "alignx" not in report["systems"]
    assert {"base", "expert:concise", "expert:polite", "joint"} <= report["systems"].keys()
    (left_out,) = [note for note in report["notes"] if "left out" in note]
    assert left_out.startswith("alignx is left out: no expert answered any of the 3 calibration prompts acceptably")
