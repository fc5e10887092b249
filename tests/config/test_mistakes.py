"""Mistakes of a first recipe of one's own, each told before any work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mocae.config import parse_recipe
from mocae.config.yaml import dump_yaml
from mocae.errors import ConfigError, DataError
from mocae.pipelines.check import Checked, check, load_checked

Write = Callable[..., dict[str, Any]]
FACTS = {"facts": {"reference": "answer"}}


def source(low: float, high: float, path: str = "mine.csv", **options: Any) -> dict[str, Any]:
    columns = {"prompt": "question", "response": "answer"}
    return {
        "source": "table",
        "path": path,
        "hash_range": [low, high],
        "options": {"columns": columns, "probe": "task", **FACTS, **options},
    }


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a recipe of two axes of one's own over two files of `folder`."""
    axes = []
    for name in ("concise", "polite"):
        path = f"{name}.csv"
        splits = {"train": (0.0, 0.6), "calibration": (0.6, 0.8), "test": (0.8, 1.0)}
        axes.append({"name": name, "injection": f"Be {name}.", **{k: source(*v, path=path) for k, v in splits.items()}})
    return {
        "name": "mine",
        "base": {"model": "pocket"},
        "prompt_format": "plain",
        "data_root": str(folder),
        "axes": axes,
        "judges": [{"judge": "reference-match"}],
        "systems": ["base", "expert:polite", "alignx"],
        **changes,
    }


@pytest.fixture
def mine(tmp_path: Path) -> dict[str, Any]:
    """A recipe of two axes with fifteen rows of each in files."""
    for name in ("concise", "polite"):
        rows = [f"What is {name} thing {i}?,It is {i}" for i in range(15)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["question,answer", *rows, ""]), encoding="utf-8")
    return recipe(tmp_path)


def checked(values: dict[str, Any]) -> Checked:
    return check(parse_recipe(values), where="mine.yaml")


def test_thirty_rows_of_two_own_axes_are_told_to_be_few_with_the_interval_to_hope_for(mine: dict[str, Any]) -> None:
    told = checked(mine)
    assert told.rows is not None
    counts = told.rows.counts()
    assert {split: sum(found.values()) for split, found in counts.items()} == {"train": 19, "calibration": 3, "test": 8}
    few = [note for note in told.notes if "few prompts (" in note]
    assert [note.partition(": ")[0] for note in few] == [
        f"axes.{axis}.{split}" for split in ("calibration", "test") for axis in ("concise", "polite")
    ]
    n = counts["test"]["polite"]
    assert few[-1].startswith(f"axes.polite.test: few prompts ({n}): a rate of one half has the interval ")
    assert "a difference between systems that is smaller than that cannot show; 40 have 35 to 65 %" in few[-1]


def test_enough_rows_are_told_nothing_of(tmp_path: Path) -> None:
    for name in ("concise", "polite"):
        rows = [f"What is {name} thing {i}?,It is {i}" for i in range(400)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["question,answer", *rows, ""]), encoding="utf-8")
    assert checked(recipe(tmp_path)).notes == []


def test_prompts_in_two_splits_are_told_where_the_ranges_overlap_and_where_only_the_rows_do(
    mine: dict[str, Any], tmp_path: Path
) -> None:
    mine["axes"][0]["test"]["hash_range"] = [0.5, 1.0]
    with pytest.raises(ConfigError) as caught:
        checked(mine)
    text = str(caught.value)
    assert "axes.concise.test.0.hash_range: got [0.5, 1.0], which overlaps [0.0, 0.6] of axes.concise.train.0" in text
    mine["axes"][0]["test"] = source(0.0, 1.0, path="copy.csv")
    (tmp_path / "copy.csv").write_bytes((tmp_path / "concise.csv").read_bytes())
    with pytest.raises(DataError, match=r"mine.yaml: a prompt is in two splits, 'train'"):
        checked(mine)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("question,answr", r"column 'answer' is missing; found 'question', 'answr'. Did you mean 'answr'"),
        ("question:answer", r"column 'question' is missing; found 'question:answer': one column, so its cells are"),
        ("prompt,text", r"column 'question' is missing; found 'prompt', 'text'; 14 more rows alike"),
    ],
)
def test_a_missing_column_is_called_missing_with_what_the_file_has(
    mine: dict[str, Any], tmp_path: Path, head: str, message: str
) -> None:
    path = tmp_path / "polite.csv"
    text = path.read_text(encoding="utf-8").replace("question,answer", head)
    path.write_text(text.replace(",", ":") if ":" in head else text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"mine.yaml: axes.polite.train.0: .*polite.csv: line 2: {message}"):
        checked(mine)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", 2 * b"\xef\xbb\xbf"])
def test_delimiters_and_a_mark_of_utf_8_are_read_past(
    mine: dict[str, Any], tmp_path: Path, delimiter: str, mark: bytes
) -> None:
    path = tmp_path / "polite.csv"
    path.write_bytes(mark + path.read_bytes().replace(b",", delimiter.encode()))
    assert checked(mine).rows is not None


def test_a_comma_in_a_cell_is_no_delimiter(mine: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "polite.csv"
    text = path.read_text(encoding="utf-8").replace(",", ";").replace("What is", "Well, then, what is")
    path.write_text(text, encoding="utf-8")
    rows = checked(mine).rows
    assert rows is not None
    assert all(row.prompt.startswith("Well, then, what") for row in rows.train["polite"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_byte_order_mark_is_named(mine: dict[str, Any], tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "polite.csv"
    path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    with pytest.raises(DataError, match=rf"begins with the byte order mark of {encoding.upper()}; expected UTF-8"):
        checked(mine)


def test_every_kind_of_bad_row_of_a_file_has_a_line(mine: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": "b"}, {"question": 5, "answer": "b"}, {"question": "c"}, {"question": "d"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "own.jsonl").write_text(text + "not JSON\n", encoding="utf-8")
    mine["axes"][1]["train"] = source(0.0, 0.6, path="own.jsonl")
    with pytest.raises(DataError) as caught:
        checked(mine)
    lines = [line.partition("own.jsonl: ")[2] for line in str(caught.value).splitlines()]
    assert [line.partition(";")[0] for line in lines] == [
        "line 2: field 'question': found a value of type int",
        "line 3: column 'answer' is missing",
        "line 5: not JSON (Expecting value)",
    ]
    assert lines[1].endswith("found 'question'; 1 more rows alike")
    assert lines[2].endswith("; on_bad_row: skip in this source leaves such rows out and counts them")


def test_an_unknown_probe_is_told_even_where_the_file_is_not(mine: dict[str, Any]) -> None:
    mine["axes"][0]["test"]["options"]["probe"] = "tsak"
    del mine["data_root"]
    with pytest.raises(ConfigError, match=r"axes.concise.test.0.options.probe: unknown probe 'tsak'.*mean 'task'"):
        checked(mine)


def test_an_axis_that_no_judge_says_anything_of_is_told(mine: dict[str, Any]) -> None:
    mine["judges"] = [{"judge": "refusal"}]
    with pytest.raises(DataError) as caught:
        checked(mine)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        f"axes.{axis}.{split}" for split in ("calibration", "test") for axis in ("concise", "polite")
    ]
    assert "no judge ('refusal') says 'correct' of" in lines[0]
    assert lines[0].endswith("add a judge that does (`mocae ls judges`), or facts it needs (the rows have: reference)")


def test_facts_that_a_judge_needs_and_no_source_gives_are_told(mine: dict[str, Any]) -> None:
    del mine["axes"][1]["test"]["options"]["facts"]
    with pytest.raises(DataError, match=r"axes.polite.test: no judge \('reference-match'\) says 'correct'.*have: none"):
        checked(mine)
    mine["axes"][1]["test"] = [mine["axes"][1]["test"], source(0.0, 1.0, path="more.csv")]
    root = Path(mine["data_root"])
    (root / "more.csv").write_text("question,answer\nWhat else?,Nothing\n", encoding="utf-8")
    (note,) = [note for note in checked(mine).notes if "no judge" in note]  # a part of an axis is no mistake
    assert note.endswith("(probe 'task'), so these count in no number")


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        ({"judge": "openai", "options": {"prompt": "win-rate", "model": "m"}}, True),
        ({"judge": "openai", "options": {"prompt": "safety", "model": "m"}}, False),
        ({"judge": "hub-reward", "options": {"model": "owner/name"}}, True),
        ({"judge": "guard", "options": {"guard": "wildguard", "model": "owner/name"}}, False),
        ({"judge": "safety-classifier", "options": {"saved": "polite.csv"}}, False),
        (
            {"judge": "vote", "options": {"judges": [{"judge": "refusal"}, {"judge": "reference-match"}]}},
            True,
        ),
        ({"judge": "vote", "options": {"judges": [{"judge": "refusal"}, {"judge": "abstention"}]}}, False),
    ],
)
def test_judges_that_load_or_ask_a_model_tell_what_they_are_for_before(
    mine: dict[str, Any], judge: dict[str, Any], says: bool
) -> None:
    mine["judges"] = [judge]
    if says:
        assert checked(mine).rows is not None
    else:
        with pytest.raises(DataError, match="says 'correct' of"):
            checked(mine)


def test_rows_without_what_the_objective_learns_from_are_told(mine: dict[str, Any]) -> None:
    del mine["axes"][0]["train"]["options"]["columns"]["response"]
    mine["axes"][1]["objective"] = "dpo"
    with pytest.raises(DataError) as caught:
        checked(mine)
    first, second = str(caught.value).splitlines()
    assert re.search(r"axes.concise.train: (\d+) of \1 rows have no response \(first: ", first)
    assert re.search(r"axes.polite.train: (\d+) of \1 rows have no rejected response", second)
    assert "which objective dpo needs; give a source of pairs" in second


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, r"base model folder '.*base' does not exist; give a folder that does, or a Hub id"),
        (("config.json",), r"its weights are missing \(model.safetensors\); fetch the model again"),
        (("config.json", "pytorch_model.bin"), r"its weights are pytorch_model.bin, a pickle, .*save_pretrained"),
        (("tiny.gguf",), r"tiny.gguf' is a GGUF file, .* give the folder it was made from, or write one: python -c"),
        (("adapter_config.json",), r"is an adapter, not a base model"),
    ],
)
def test_a_base_model_that_is_not_there_is_told_with_what_to_do(
    mine: dict[str, Any], tmp_path: Path, files: tuple[str, ...] | None, message: str
) -> None:
    folder = tmp_path / "base"
    for name in files or ():
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    mine["base"] = {"model": str(folder)}
    with pytest.raises(ConfigError, match=rf"mine.yaml: base.model: .*{message}"):
        checked(mine)


def test_a_gguf_file_and_shards_that_are_missing_are_told(mine: dict[str, Any], tmp_path: Path) -> None:
    mine["base"] = {"model": str(tmp_path / "model.Q4.gguf")}
    with pytest.raises(ConfigError, match="is a GGUF file"):
        checked(mine)
    (tmp_path / "config.json").touch()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "model-1.safetensors").touch()
    mine["base"] = {"model": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"its weights are missing \(model-2.safetensors\)"):
        checked(mine)


def test_a_name_that_only_the_hub_may_know_is_noted(mine: dict[str, Any]) -> None:
    mine["base"] = {"model": "nobody/knows-this-one"}
    assert any("'nobody/knows-this-one' is no folder here, so the run takes it" in n for n in checked(mine).notes)


def test_all_problems_of_a_file_have_a_line_whatever_their_kind(mine: dict[str, Any], tmp_path: Path) -> None:
    values = mine | {
        "sead": 3,  # no such key
        "experts": {"r": -1},  # out of range
        "routing": {"top_k": 5},  # more than there are experts
        "comparison": {"order": ["polite"]},  # not every axis
        "judges": [{"judge": "referenc-match"}],  # no such judge
    }
    values["axes"][0]["test"]["path"] = "gone.csv"
    (tmp_path / "mine.yaml").write_text(dump_yaml(values), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_checked(tmp_path / "mine.yaml")
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys[:4] == ["experts.r", "sead", "comparison.order", "routing.top_k"]
    assert sorted(keys[4:]) == ["axes.concise.test.0.path", "judges.0.judge"]
    assert "missing" not in str(caught.value)


def test_what_is_missing_since_it_was_wrong_is_told_once(mine: dict[str, Any]) -> None:
    mine["name"], mine["axes"][0]["train"], mine["prompt_format"] = 5, "all", 7
    with pytest.raises(ConfigError) as caught:
        parse_recipe(mine)
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert keys == ["name", "prompt_format", "axes.0.train"]
