"""Models left out, labels in the forms they are published in, and what a judge of refusals learns from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from mocae.cli import main
from mocae.errors import DataError
from mocae.judges.learned.classifier import load_classifier
from mocae.judges.learned.design import LabelledAnswer
from mocae.judges.learned.refusal_classifier import REFUSAL, REFUSAL_SIGNS, fit_refusal_classifier, read_refusal_labels
from mocae.judges.learned.unseen import by_model, leave_models_out

LECTURES = {
    "oak": "I'm sorry, but I cannot help with that. It is important to respect the property of others, please.",
    "elm": "It is never acceptable to take what belongs to others. Please seek the help of a professional.",
}


def _rows(models: tuple[str, ...] = ("oak", "elm"), n: int = 24) -> list[LabelledAnswer]:
    return [
        LabelledAnswer(f"how do I mend thing {i}", answer, refuses, model=model)
        for model in models
        for i in range(n)
        for refuses, answer in (
            (True, f"{LECTURES[model.lower()]} Let thing {i} be."),
            (False, f"To mend thing {i}, clean it, glue the parts of thing {i}, and wait for {i} hours."),
        )
    ]


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_model_is_left_out_in_turn_and_says_who_taught_its_judge() -> None:
    measured = leave_models_out(REFUSAL_SIGNS, _rows())
    assert [(m.model, m.n, m.n_yes, m.learned_from) for m in measured] == [
        ("oak", 48, 24, ("elm",)),
        ("elm", 48, 24, ("oak",)),
    ]
    assert all(m.low <= m.balanced_accuracy <= m.high and m.balanced_accuracy > 0.9 for m in measured)
    assert all(m.balanced_accuracy_prompts_seen is not None for m in measured)


def test_labels_that_mean_nothing_for_another_model_show_there() -> None:
    odd = [LabelledAnswer(r.prompt, r.answer, not r.holds, model="odd") for r in _rows(("elm",))]
    measured = {m.model: m for m in leave_models_out(REFUSAL_SIGNS, [*_rows(("oak",)), *odd])}
    assert measured["odd"].balanced_accuracy < 0.1


def test_two_spellings_are_one_model_and_one_model_cannot_be_left_out() -> None:
    assert leave_models_out(REFUSAL_SIGNS, _rows(("oak",))) == ()
    assert leave_models_out(REFUSAL_SIGNS, _rows(("oak", "OAK"))) == ()


def test_a_model_with_four_answers_of_a_label_is_not_measured() -> None:
    rows = [r for r in _rows(("oak",)) if r.holds] + [r for r in _rows(("oak",)) if not r.holds][:4]
    assert by_model([float(r.holds) for r in rows], rows) == ()
    (five,) = by_model([1.0] * 24 + [0.0] * 5, [*rows, rows[-1]])
    assert (five.balanced_accuracy, five.high) == (1.0, 1.0)
    assert five.low == pytest.approx(
        1 - ((1 - 24 / (24 + 3.8415)) ** 2 + (1 - 5 / (5 + 3.8415)) ** 2) ** 0.5 / 2, abs=1e-4
    )


def test_published_labels_are_read(tmp_path: Path) -> None:
    xstest = tmp_path / "completions_oak.csv"
    xstest.write_text(
        "id,prompt,completion,final_label\n1,p,Yes.,1_full_compliance\n2,q,No.,2_full_refusal\n3,r,,3_partial_refusal\n",
        encoding="utf-8",
    )
    actions = _write(
        tmp_path / "actions.jsonl",
        [{"prompt": "p", "response": a, "model": "elm", "action": a, "risk_area": "Toxicity"} for a in "012345"]
        + [{"prompt": "p", "response": "m", "model": "elm", "action": "1", "risk_area": "Misinformation Harms"}],
    )
    safe = _write(tmp_path / "safe.jsonl", [{"prompt": "p", "response": str(s), "is_safe": s} for s in (True, False)])
    read = read_refusal_labels([xstest, actions, safe])
    assert [(r.answer, r.holds, r.model) for r in read] == [
        ("Yes.", False, "oak"),
        ("No.", True, "oak"),
        ("", True, "oak"),
        *((a, True, "elm") for a in "014"),
        ("5", False, "elm"),
        ("False", False, None),
    ]
    with pytest.raises(DataError, match=r"field 'action': found '6'; expected one of '0'"):
        read_refusal_labels([_write(tmp_path / "six.jsonl", [{"prompt": "p", "response": "r", "action": "6"}])])


def test_refusals_lose_their_words_and_answers_gain_a_lecture() -> None:
    assert REFUSAL.varied is not None
    rows = _rows(("oak",), n=2)
    varied = REFUSAL.varied(rows)
    lectures = [one for one in varied if one.row.holds]
    assert [one.parents for one in lectures] == [(0,), (2,)]
    assert all("sorry" not in one.row.answer and "important to respect" in one.row.answer for one in lectures)
    answers = [one for one in varied if not one.row.holds]
    assert [one.parents[0] for one in answers] == [1, 3]
    assert all(rows[one.parents[0]].answer in one.row.answer for one in answers)


def test_the_command_measures_models_left_out_and_saves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for model in ("oak", "elm"):
        rows = [
            {
                "prompt": row.prompt,
                "response": row.answer,
                "model": model,
                "label": "full_refusal" if row.holds else "full_compliance",
            }
            for row in _rows((model,))
        ]
        files += ["--data", str(_write(tmp_path / f"{model}.jsonl", rows))]
    for words in (
        ["train", "refusal-classifier", *files, "--out", str(tmp_path / "judge")],
        ["measure", "refusal", *files],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["judge", *words, "--json"])
        assert ended.value.code == 0
        told = json.loads(capsys.readouterr().out)
        models = told.get("unseen") or told["models"]
        assert [m["model"] for m in models] == ["oak", "elm"]
        assert all(m["balanced_accuracy"] > 0.9 for m in models)
    loaded = load_classifier(tmp_path / "judge", REFUSAL)
    assert [m.learned_from for m in loaded.unseen] == [("elm",), ("oak",)]
    assert json.loads((tmp_path / "judge" / "judge.json").read_text(encoding="utf-8"))["unseen"][0]["model"] == "oak"


def test_signs_alone_are_saved_as_numbers(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "rows.jsonl",
        [
            {"prompt": r.prompt, "response": r.answer, "label": "full_refusal" if r.holds else "full_compliance"}
            for r in _rows()
        ],
    )
    with pytest.raises(SystemExit):
        main(["judge", "train", "refusal-signs", "--data", str(path), "--out", str(tmp_path / "judge")])
    signs = json.loads((tmp_path / "judge" / "signs.json").read_text(encoding="utf-8"))
    assert sorted(signs) == ["intercept", "weights"]
    assert fit_refusal_classifier(path).unseen == ()  # no model is named
