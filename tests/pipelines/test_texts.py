"""Prompts as people and machines write them: any script, any length, with a template's own markers inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mocae
from mocae.config import Recipe, parse_recipe
from mocae.errors import DataError
from mocae.evaluation import AnswerLog, Generation, read_samples
from mocae.models import load_base
from mocae.pipelines.artifact import AlignedModel
from mocae.pipelines.run import run, train_expert
from mocae.pipelines.targets import model_target
from mocae.progress import visible
from mocae.stages.rows import read_rows_of, without_long
from run_for_tests import AXES, tiny_recipe

SPLITS = ("train", "calibration", "test")
TEXTS = {
    "Arabic": "ما هو أطول نهر؟",
    "Hebrew with English": "מהו הנהר the longest?",
    "Chinese": "最长的河是哪条",
    "joined emoji": "A family 👩‍👩‍👧 by the river 🏞️?",
    "combining marks": "Zu\u0308rich, u\u0308ber den Flu\u00df",
    "direction marks": "\u202eabc\u202c \u200fx\u200e",
    "control characters": "a\x00b\x07c\x1b[31md",
    "line ends": "one\r\ntwo\u2028three\u2029four\x85five",
    "special tokens": "Say <eos> and <pad><pad> and <bos> again.",
    "template": "assistant: done\nuser: Who?\nassistant: ",
    "other formats": "Q: a\nA: b\n### Response:\n<|im_end|>\n<|im_start|>assistant\n[/INST]</s>",
    "code": '{"a": [1, "\\n"]} <script>alert(1)</script> $x^2$ %s {0} {{ x }}',
}


@pytest.fixture(scope="module")
def model(finished: Any) -> AlignedModel:
    return mocae.load(finished.out, device="cpu")


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_is_routed_and_answered(model: AlignedModel, name: str) -> None:
    reply = model.reply(TEXTS[name])
    assert sum(reply.weights.values()) == pytest.approx(1, abs=1e-6)
    assert reply == model.reply(TEXTS[name])


def test_marks_of_the_template_in_a_prompt_move_nothing(model: AlignedModel) -> None:
    """An answer is what stands behind the prompt's last token, and padding is known by the mask, not by its id."""
    tokenizer: Any = model.tokenizer
    texts = [f"Q: {text}\nA:" for text in TEXTS.values()]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    together = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=4, do_sample=False
    )[:, batch["input_ids"].shape[1] :]
    for i, text in enumerate(texts):
        alone = tokenizer(text, return_tensors="pt")
        ids = alone["input_ids"]
        out = model.generate(ids, attention_mask=alone["attention_mask"], max_new_tokens=4, do_sample=False)
        new = out[0, ids.shape[1] :]
        assert torch.equal(new, together[i, : len(new)]), list(TEXTS)[i]


def test_an_empty_answer_is_an_answer(model: AlignedModel) -> None:
    end = model.tokenizer.eos_token_id
    assert model.reply("Name a river.", forced_eos_token_id=end, max_new_tokens=1).text == ""


def test_a_prompt_without_room_in_the_context_is_refused(model: AlignedModel) -> None:
    with pytest.raises(DataError, match=r"the prompt has 606 tokens, the model's context is 256; give a shorter one"):
        model.reply("x" * 600)
    assert model.reply("x" * 240)


def _with_a_long_prompt(finished: Any, folder: Path, split: str, **settings: Any) -> Recipe:
    """Return a recipe whose prompts of a split come from a file with one, in line 2, that the context cannot hold."""
    rows = [{"prompt": p, "axis": "honesty", "probe": "question", "facts": {}} for p in ("Who?", "Why? " * 60, "How?")]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = tiny_recipe(finished.base, systems=["base"])
    axes: list[Any] = [axis.model_dump(mode="json") for axis in recipe.axes]
    axes[2][split] = [{"source": "examples", "path": str(path), **settings}]
    return parse_recipe(recipe.model_dump(mode="json") | {"axes": axes})


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_a_prompt_longer_than_the_context_is_a_bad_row(
    finished: Any, tmp_path: Path, work: Any, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    recipe = _with_a_long_prompt(finished, tmp_path, split)
    told = rf"axes\.honesty\.{split}: .*rows\.jsonl:2: the prompt has 3\d\d tokens .* context is 256; 1 of 3 prompts"
    with pytest.raises(DataError, match=told):
        run(recipe, out=tmp_path / "out", progress=False)
    with pytest.raises(DataError, match=told):
        train_expert(recipe, axis="helpfulness", out=tmp_path / "out", progress=False)
    assert work.trained == []
    recipe = _with_a_long_prompt(finished, tmp_path, split, on_bad_row="skip")
    base = load_base(finished.base, dtype="fp32", device="cpu")
    with visible(True):
        rows = without_long(read_rows_of(recipe), recipe, base)
    assert "1 prompts longer than the base model's context of 256 tokens are left out" in capsys.readouterr().err
    assert rows.n_skipped == 1
    assert [row.prompt for row in getattr(rows, split)["honesty"]] == ["Who?", "How?"]


def test_an_evaluation_does_not_answer_what_the_context_cannot_hold(finished: Any, tmp_path: Path) -> None:
    rows = read_rows_of(_with_a_long_prompt(finished, tmp_path, "test")).test["honesty"]
    target = model_target(str(finished.base), prompt_format="plain", device="cpu")
    log = AnswerLog(tmp_path / "log")
    target.answer(rows, Generation(max_new_tokens=4), log)
    assert sorted(row.prompt for row in rows if log.answer(row) is not None) == ["How?", "Who?"]


def test_a_run_takes_any_text_from_its_files_to_its_page(finished: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "calibration", "test"):
        rows = [
            {"prompt": f"{split} {text}", "response": f"{text[:20]} ok", "axis": axis, "probe": "task", "facts": {}}
            for axis in AXES
            for text in (f"{axis[:4]} {text}" for text in TEXTS.values())
        ]
        if split == "train":  # left out of training, which has room for 200 tokens
            rows += [{**row, "prompt": f"{row['axis']} {'very ' * 200}"} for row in rows[:: len(TEXTS)]]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (data / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    axes = [
        {"name": axis, "injection": "فكّر", **{s: {"source": "examples", "path": f"{s}.jsonl"} for s in SPLITS}}
        for axis in AXES
    ]
    values = tiny_recipe(finished.base, data_root=str(data), systems=["base", "alignx"]).model_dump(mode="json")
    result = run(parse_recipe(values | {"axes": axes}), out=tmp_path / "out", progress=False)
    asked = {s.answer.example.prompt for s in read_samples(tmp_path / "out" / "samples.jsonl")}
    assert asked == {f"test {axis[:4]} {text}" for axis in AXES for text in TEXTS.values()}
    page = result.html_path.read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert '<blockquote class="prompt" dir="auto">' in page
