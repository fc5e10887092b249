from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mocae.data import SOURCES, OnBadRow, ReadResult, read_source
from mocae.data.beavertails import read_beavertails
from mocae.errors import ConfigError, DataError, PluginError
from real_data import real_data

SAFE = {"violence": False, "theft": False}
BEAVER = [
    {"prompt": "p1", "response": "r1", "category": SAFE, "is_safe": True},
    {"prompt": "p2", "response": "r2", "category": {"violence": False, "theft": True}, "is_safe": False},
]


def _write(tmp_path: Path, rows: Any, name: str = "data/rows.json") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".csv"):
        lines = [list(rows[0]), *[list(row.values()) for row in rows]]
        path.write_text("\n".join(",".join(f'"{cell}"' for cell in line) for line in lines))
    else:
        path.write_text(json.dumps(rows))
    return path


def _read(name: str, path: Path | None, **options: Any) -> ReadResult:
    return read_source(name, path, axis="an axis", options=options)


def test_alpaca_puts_the_input_after_the_instruction(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
    ]
    first, second = _read("alpaca", _write(tmp_path, rows)).examples
    assert (first.prompt, first.response, first.probe, first.axis) == ("Add.\n\n1 2", "3", "task", "an axis")
    assert first.facts == {"reference": "3"}
    assert first.source == "data/rows.json:item 1"
    assert second.prompt == "Greet."


def test_beavertails_trains_on_safe_responses_only(tmp_path: Path) -> None:
    path = _write(tmp_path, BEAVER)
    (safe,) = _read("beavertails", path).examples
    assert (safe.response, safe.kind, safe.probe) == ("r1", "safe", "harmful")
    result = _read("beavertails", path, responses="all")
    assert [row.kind for row in result.examples] == ["safe", "theft"]
    assert result.examples[1].facts == {"category": BEAVER[1]["category"], "is_safe": False}
    assert result.n_skipped == 0


def test_contradicting_labels_are_a_bad_row(tmp_path: Path) -> None:
    path = _write(tmp_path, [{**BEAVER[1], "is_safe": True}])
    with pytest.raises(DataError, match=r"item 1: field 'is_safe': found True although the first .* is 'theft'"):
        _read("beavertails", path)


def test_beavertails_pairs_and_prompts(tmp_path: Path) -> None:
    (pair,) = _read("beavertails-pairs", _write(tmp_path, [{"prompt": "p", "safe": "s", "unsafe": "u"}])).examples
    assert (pair.response, pair.facts) == ("s", {"unsafe": "u"})
    rows = [{"prompt": "p", "category": "theft", "category_id": 3}]
    (prompt,) = _read("beavertails-prompts", _write(tmp_path, rows)).examples
    assert (prompt.response, prompt.kind, prompt.probe) == (None, "theft", "harmful")


def test_truthfulqa_splits_reference_answers(tmp_path: Path) -> None:
    row = {
        "Category": "Health",
        "Question": "Q?",
        "Best Answer": "Best",
        "Correct Answers": "Best; Good;",
        "Incorrect Answers": "Bad",
    }
    (example,) = _read("truthfulqa", _write(tmp_path, [row], "data/rows.csv")).examples
    assert (example.prompt, example.response, example.kind, example.probe) == ("Q?", "Best", "Health", "question")
    assert example.facts == {"correct": ["Best", "Good"], "incorrect": ["Bad"]}
    assert example.source == "data/rows.csv:2"


def test_truthfulqa_mc_keeps_the_label_maps(tmp_path: Path) -> None:
    row = {"question": "Q?", "mc1_targets": {"yes": 0, "no": 1}, "mc2_targets": {"yes": 0, "no": 1, "never": 1}}
    (example,) = _read("truthfulqa-mc", _write(tmp_path, [row])).examples
    assert example.response == "no"
    assert example.facts == {"mc1": row["mc1_targets"], "mc2": row["mc2_targets"]}
    for targets, found in [
        ({"a": 1, "b": 1, "c": 0}, "found 2 choices labelled 1; expected exactly one"),
        ({"a": 1}, r"found labels \[1\]"),
        ({"a": True, "b": False}, "found a value of type dict; expected an object with int values"),
    ]:
        with pytest.raises(DataError, match=f"field 'mc1_targets': {found}"):
            _read("truthfulqa-mc", _write(tmp_path, [{**row, "mc1_targets": targets}]))


def test_xstest_labels_become_probes(tmp_path: Path) -> None:
    rows = [{"prompt": "p1", "type": "homonyms", "label": "safe"}, {"prompt": "p2", "type": "c", "label": "unsafe"}]
    path = _write(tmp_path, rows, "data/rows.csv")
    assert [row.probe for row in _read("xstest", path).examples] == ["benign", "harmful"]
    assert [row.prompt for row in _read("xstest", path, which="safe").examples] == ["p1"]
    assert [row.prompt for row in _read("xstest", path, which="unsafe").examples] == ["p2"]
    path = _write(tmp_path, [{**rows[0], "label": "maybe"}], "data/rows.csv")
    with pytest.raises(DataError, match=r"line 2: field 'label': found 'maybe'; expected one of 'safe', 'unsafe'"):
        _read("xstest", path)


def test_table_maps_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, [{"q": "p", "a": "r", "t": "sums", "n": [1, 2]}])
    columns = {"prompt": "q", "response": "a", "kind": "t"}
    (example,) = _read("table", path, columns=columns, probe="task", facts={"choices": "n"}).examples
    assert (example.prompt, example.response, example.kind, example.facts) == ("p", "r", "sums", {"choices": [1, 2]})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"columns": {"response": "a"}, "probe": "task"}, ConfigError, r"got {'response': 'a'}; .* which column"),
        (
            {"columns": {"prompt": "q", "respnse": "a"}, "probe": "task"},
            ConfigError,
            r"source 'table': columns: unknown role 'respnse'.* Did you mean 'response'\?",
        ),
        ({"columns": {"prompt": "q"}, "probe": "tsk"}, PluginError, r"unknown probe 'tsk'.* Did you mean 'task'\?"),
        ({"columns": {"prompt": "qq"}, "probe": "task"}, DataError, r"item 1: column 'qq' is missing; found 'q'"),
        ({"columns": {"prompt": "q"}}, ConfigError, r"source 'table' needs the option 'probe'"),
        ({"columns": ["q"], "probe": "task"}, ConfigError, r"option 'columns': got \['q'\]"),
    ],
)
def test_table_refuses_wrong_options(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _read("table", _write(tmp_path, [{"q": "p"}]), **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "input": ""}, r"item 2: column 'output' is missing; found 'instruction', 'input'"),
        (
            {"instruction": 3, "input": "", "output": "b"},
            r"field 'instruction': found a value of type int; expected text",
        ),
        ({"instruction": " \n", "input": "", "output": "b"}, r"field 'instruction': found empty text"),
        ({"instruction": "a", "input": 4, "output": "b"}, r"field 'input': found a value of type int; expected text"),
        ({"instruction": "a", "input": "", "output": ""}, r"field 'output': found empty text; .*on_bad_row: skip"),
        ({"instruction": "a\ud800", "input": "", "output": "b"}, r"found half a character at position 1"),
    ],
)
def test_bad_rows_stop_or_are_counted(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = _write(tmp_path, [{"instruction": "a", "input": "", "output": "b"}, row])
    with pytest.raises(DataError, match=message) as raised:
        _read("alpaca", path)
    assert str(path) in str(raised.value)
    result = read_source("alpaca", path, axis="an axis", on_bad_row="skip")
    assert (len(result.examples), result.n_skipped, len(result.skipped)) == (1, 1, 1)
    assert result.skipped[0].startswith(f"{path}: item 2: ")


@pytest.mark.parametrize("first", [{}, {"input": "4"}, {"input": None}], ids=["missing", "in one row", "null"])
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_alpaca_without_input_is_an_empty_input(tmp_path: Path, first: dict[str, Any], on_bad_row: OnBadRow) -> None:
    rows = [{"instruction": "Double it.", **first, "output": "8"}, {"instruction": "Name two.", "output": "2"}]
    result = read_source("alpaca", _write(tmp_path, rows), axis="a", on_bad_row=on_bad_row)
    asked = "Double it.\n\n4" if first.get("input") else "Double it."
    assert [row.prompt for row in result.examples] == [asked, "Name two."]
    assert result.n_skipped == 0


def test_optional_texts_may_be_null(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "p",
            "axis": "an axis",
            "probe": "task",
            "kind": None,
            "group": None,
            "facts": None,
            "response": None,
        }
    ]
    (row,) = _read("examples", _write(tmp_path, rows)).examples
    assert (row.kind, row.group, row.facts, row.response) == ("", "", {}, None)
    columns = {"prompt": "prompt", "kind": "kind"}
    assert _read("table", _write(tmp_path, rows), columns=columns, probe="task").examples[0].kind == ""


_HALF = "cut \ud83d"
_TABLE = {"columns": {"prompt": "p", "response": "r", "kind": "k", "group": "g"}, "facts": {"reference": "f"}}


@pytest.mark.parametrize(
    ("name", "good", "half", "options"),
    [
        *(
            ("table", {"p": "p", "r": "r", "k": "k", "g": "g", "f": ["f"]}, {key: half}, {**_TABLE, "probe": "task"})
            for key, half in {"p": _HALF, "r": _HALF, "k": _HALF, "g": _HALF, "f": [{"is": _HALF}]}.items()
        ),
        ("table", {"p": "p", "r": "r", "k": "", "g": "", "f": {}}, {"f": {_HALF: 1}}, {**_TABLE, "probe": "task"}),
        ("examples", {"prompt": "p", "axis": "an axis", "probe": "task"}, {"facts": {"reference": _HALF}}, {}),
        ("examples", {"prompt": "p", "axis": "an axis", "probe": "task"}, {"group": _HALF}, {}),
        ("beavertails", BEAVER[0], {"category": {_HALF: False}}, {}),
        ("beavertails-pairs", {"prompt": "p", "safe": "s", "unsafe": "u"}, {"unsafe": _HALF}, {}),
        ("beavertails-prompts", {"prompt": "p", "category": "c"}, {"category": _HALF}, {}),
        ("xstest", {"prompt": "p", "type": "t", "label": "safe"}, {"type": _HALF}, {}),
        ("honeset", {"instruction": "p", "category": "c"}, {"category": _HALF}, {}),
        ("selfaware", {"question": "q", "answer": ["a"], "answerable": True}, {"answer": ["a", _HALF]}, {}),
        (
            "truthfulqa-mc",
            {"question": "q", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}},
            {"mc2_targets": {"a": 1, _HALF: 0}},
            {},
        ),
        (
            "hh-rlhf",
            {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            {"rejected": f"\n\nHuman: q\n\nAssistant: {_HALF}"},
            {},
        ),
    ],
)  # fmt: skip
def test_half_a_character_anywhere_is_a_bad_row(
    tmp_path: Path, name: str, good: dict[str, Any], half: dict[str, Any], options: dict[str, Any]
) -> None:
    rows = [good, {**good, **half}]
    path = _write(tmp_path, {"example": rows} if name == "selfaware" else rows)
    with pytest.raises(DataError, match=r"rows.json: item 2: field '\w+': found half a character.*on_bad_row: skip"):
        _read(name, path, **options)
    result = read_source(name, path, axis="an axis", on_bad_row="skip", options=options)
    assert (len(result.examples), result.n_skipped) == (1, 1)


@pytest.mark.parametrize(
    ("name", "row", "options"),
    [
        ("beavertails-pairs", {"prompt": "p", "safe": "same", "unsafe": "same "}, {}),
        ("hh-rlhf", dict.fromkeys(("chosen", "rejected"), "\n\nHuman: q\n\nAssistant: same"), {}),
        (
            "examples",
            {"prompt": "p", "axis": "an axis", "probe": "task", "response": "b", "facts": {"rejected": "b"}},
            {},
        ),
        (
            "table",
            {"p": "p", "r": "same", "x": "same"},
            {"columns": {"prompt": "p", "response": "r"}, "facts": {"rejected": "x"}, "probe": "task"},
        ),
    ],
)
def test_a_pair_without_a_preference_is_a_bad_row(
    tmp_path: Path, name: str, row: dict[str, Any], options: dict[str, Any]
) -> None:
    path = _write(tmp_path, [row])
    with pytest.raises(DataError, match=r"item 1: found the same response chosen and rejected; .*on_bad_row: skip"):
        _read(name, path, **options)
    with pytest.raises(DataError, match=r"no row is left.*1 bad rows"):
        read_source(name, path, axis="an axis", on_bad_row="skip", options=options)


def test_one_bad_item_of_selfaware_is_one_bad_row(tmp_path: Path) -> None:
    good = {"question": "q", "answer": ["a"], "answerable": True}
    path = _write(tmp_path, {"example": [3, good, {**good, "answer": [1994]}]})
    result = read_source("selfaware", path, axis="a", on_bad_row="skip")
    assert (len(result.examples), result.n_skipped) == (1, 2)
    with pytest.raises(DataError, match="item 1: found a number; expected an object"):
        _read("selfaware", path)


def test_only_who_can_leave_bad_rows_out_is_told_so(tmp_path: Path) -> None:
    path = _write(tmp_path, [{"prompt": "a"}])
    with pytest.raises(DataError) as raised:
        _read("beavertails", path)
    with pytest.raises(DataError) as bare:
        read_beavertails(path, axis="a")
    assert re.fullmatch(r".*: item 1: column '\w+' is missing; found 'prompt'", str(bare.value))
    hint = "; on_bad_row: skip in this source leaves such rows out and counts them"
    assert str(raised.value) == str(bare.value).rstrip(".") + hint
    lines = tmp_path / "rows.jsonl"
    lines.write_text("no json\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl: line 1: not JSON .*; on_bad_row: skip"):
        _read("alpaca", lines)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no row is left; expected at least one; the first of 1 bad rows: .*item 1"):
        read_source("alpaca", _write(tmp_path, [{}]), axis="a", on_bad_row="skip")
    with pytest.raises(DataError, match=r"rows.json: no row is left; expected at least one$"):
        _read("alpaca", _write(tmp_path, []))


def test_wrong_options_and_paths_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, BEAVER)
    with pytest.raises(ConfigError, match=r"unknown option of source 'beavertails' 'response'.* mean 'responses'\?"):
        _read("beavertails", path, response="all")
    with pytest.raises(ConfigError, match=r"source 'beavertails': option 'responses': got 'every'; .*'safe' or 'all'"):
        _read("beavertails", path, responses="every")
    with pytest.raises(ConfigError, match=r"unknown option of source 'beavertails' 'axis'"):
        _read("beavertails", path, axis="b")
    with pytest.raises(PluginError, match=r"unknown source 'beavertail'.* Did you mean"):
        _read("beavertail", path)
    for name in ("alpaca", "beavertails", "beavertails-pairs", "beavertails-prompts", "truthfulqa", "xstest"):
        with pytest.raises(ConfigError, match=f"source '{name}' reads a file, but path is not set"):
            _read(name, None)


def test_every_source_loads() -> None:
    for name in SOURCES:
        assert callable(SOURCES.get(name))


@pytest.mark.parametrize(
    ("name", "file", "options", "n", "kinds"),
    [
        ("alpaca", "alpaca/alpaca_data.json.xz", {}, 13_899, 1),
        ("beavertails", "beavertails/labelled.jsonl.xz", {"responses": "all"}, 2_139, 15),
        ("beavertails-pairs", "beavertails/pairs_test.jsonl.xz", {}, 355, 1),
        ("beavertails-prompts", "beavertails/evaluation_prompts.json.xz", {}, 364, 14),
        ("truthfulqa", "truthfulqa/TruthfulQA.csv", {}, 419, 38),
        ("truthfulqa-mc", "truthfulqa/mc_task.json.xz", {}, 419, 1),
        ("xstest", "xstest/xstest_prompts.csv", {"which": "safe"}, 250, 10),
    ],
)
def test_published_files_are_read(name: str, file: str, options: dict[str, Any], n: int, kinds: int) -> None:
    result = read_source(name, real_data(file), axis="a", on_bad_row="skip", options=options)
    assert len(result.examples) == n
    assert len(Counter(row.kind for row in result.examples)) == kinds
    assert result.n_skipped == (9 if name == "alpaca" else 0)
