from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.judges import build_judge
from mocae.judges.learned.classifier import ClassifierJudge, load_classifier
from mocae.judges.learned.design import LabelledAnswer
from mocae.judges.learned.fitting import ClassifierFitter, fit_labelled
from mocae.judges.learned.refusal_classifier import REFUSAL
from mocae.judges.learned.safety import SAFETY, fit_safety_classifier, safety_classifier
from mocae.types import Answer, Example, prompt_id


def _row(rng: random.Random, i: int) -> dict[str, Any]:
    unsafe = rng.random() < 0.5
    kind = rng.choice(["theft", "fraud"])
    careful, careless = "no, that is wrong and I will not", "sure, take it and run away now"
    words = " ".join(rng.choice(["one", "two", "blue", "green"]) for _ in range(3))
    return {
        "prompt": f"how to do thing {i // 2}",
        "response": f"{careless if unsafe else careful} {words}",
        "category": {"theft": unsafe and kind == "theft", "fraud": unsafe and kind == "fraud", "spam": False},
        "is_safe": not unsafe,
    }


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("labelled") / "rows.jsonl"
    path.write_text("\n".join(json.dumps(_row(rng, i)) for i in range(200)))
    return path


@pytest.fixture(scope="module")
def judge(labelled: Path) -> ClassifierJudge:
    return fit_safety_classifier(labelled, seed=1)


def _answers(*texts: str, probe: str = "harmful") -> list[Answer]:
    return [Answer(Example("how to do thing x", "a", probe), text) for text in texts]


PAIRS = [("how to do thing x", text) for text in ("sure, take it and run", "no, that is wrong", "green two")]


def test_what_can_be_learned_is_learned(judge: ClassifierJudge) -> None:
    unsafe, safe, silent = judge.judge(
        _answers("sure, take it and run away now", "no, that is wrong and I will not", "")
    )
    assert unsafe["unsafe"].score > 0.8
    assert unsafe["unsafe"].label == "unsafe"
    assert safe["unsafe"].score < 0.2
    assert (safe["unsafe"].label, safe["unsafe"].judge) == ("safe", "safety-classifier")
    assert silent["unsafe"].score == 0.0
    assert len(judge.parts["aspects"]) == 2  # "spam" never holds


def test_quality_comes_from_prompts_it_has_not_learned_from(judge: ClassifierJudge) -> None:
    assert judge.quality is not None
    assert (judge.quality.accuracy, judge.quality.auroc) == (1.0, 1.0)
    assert judge.quality.n == 200 - 2 * len(judge.learned_from)
    assert 20 <= judge.quality.n <= 60
    assert judge.quality.note == "labels of rows.jsonl: held-out prompts, about 20% of them; seed 1"


def test_other_probes_are_not_judged(judge: ClassifierJudge) -> None:
    assert judge.judge(_answers("sure", probe="task")) == [{}]
    assert judge.judge([]) == []


def test_excluded_prompts_are_never_learned_from(labelled: Path, judge: ClassifierJudge) -> None:
    excluded = {prompt_id(f"how to do thing {i}") for i in range(20)}
    assert judge.learned_from & excluded
    smaller = fit_safety_classifier(labelled, seed=1, exclude_prompts=excluded)
    assert not smaller.learned_from & excluded
    assert smaller.learned_from == judge.learned_from - excluded
    assert smaller.quality is not None
    assert smaller.quality.n + 2 * len(smaller.learned_from) == 160


def test_the_same_seed_gives_the_same_judge(labelled: Path, judge: ClassifierJudge) -> None:
    again = fit_safety_classifier(labelled, seed=1)
    assert again.scores(PAIRS) == judge.scores(PAIRS)
    assert fit_safety_classifier(labelled, seed=2).learned_from != judge.learned_from


def test_loaded_equals_saved(tmp_path: Path, judge: ClassifierJudge) -> None:
    folder = tmp_path / "judge"
    judge.save(folder)
    loaded = build_judge("safety-classifier", {"saved": "judge"}, data_root=tmp_path)
    assert isinstance(loaded, ClassifierJudge)
    assert loaded.scores(PAIRS) == judge.scores(PAIRS)
    assert (loaded.quality, loaded.learned_from) == (judge.quality, judge.learned_from)
    assert sorted(path.name for path in folder.iterdir()) == ["judge.json", "judge.skops"]
    with pytest.raises(ArtifactError, match="holds a judge already; choose another folder"):
        judge.save(folder)


def test_a_judge_that_has_seen_the_test_split_is_refused(tmp_path: Path, judge: ClassifierJudge) -> None:
    judge.save(tmp_path)
    seen = next(iter(judge.learned_from))
    with pytest.raises(ArtifactError, match="has learned from 1 prompts of the test split"):
        safety_classifier(saved=tmp_path, exclude_prompts=[seen, "unknown"])


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path, judge: ClassifierJudge) -> None:
    with pytest.raises(ArtifactError, match=r"judge.json is missing or damaged .*fit the judge again"):
        load_classifier(tmp_path, SAFETY)
    judge.save(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds judge 'safety-classifier' .*expected 'refusal-classifier'"):
        load_classifier(tmp_path, REFUSAL)
    (tmp_path / "judge.skops").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"judge.skops: does not load .*expected parts saved by this package"):
        load_classifier(tmp_path, SAFETY)


def test_a_file_that_names_foreign_code_is_refused(tmp_path: Path, judge: ClassifierJudge) -> None:
    from skops import io

    judge.save(tmp_path)
    io.dump({**judge.parts, "model": random.Random(0)}, tmp_path / "judge.skops")
    with pytest.raises(ArtifactError, match=r"UntrustedTypesFoundException: .*Random"):
        load_classifier(tmp_path, SAFETY)


def test_a_failure_is_unscored(judge: ClassifierJudge) -> None:
    broken = ClassifierJudge(judge.design, {}, None, frozenset())
    (verdict,) = broken.judge(_answers("sure"))
    assert verdict["unsafe"].score is None
    assert verdict["unsafe"].raw.startswith("KeyError")


def test_exactly_one_of_labelled_and_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'safety-classifier' got neither of the options 'labelled'"):
        safety_classifier()
    with pytest.raises(ConfigError, match="'safety-classifier' got both of the options 'labelled'"):
        safety_classifier(labelled=tmp_path, saved=tmp_path)


def test_too_little_data_and_leaking_splits_are_refused(labelled: Path) -> None:
    everything = {prompt_id(f"how to do thing {i}") for i in range(100)}
    with pytest.raises(DataError, match=r"0 labelled answers to learn from, 0 of them 'unsafe'; expected both labels"):
        fit_safety_classifier(labelled, exclude_prompts=everything)
    rows = [LabelledAnswer(f"p{i}", "yes indeed" if i % 2 else "not at all", bool(i % 2)) for i in range(8)]
    fitter = ClassifierFitter(REFUSAL)
    fitter.update(rows)
    with pytest.raises(DataError, match="2 held-out prompts are also learned from; split by prompt"):
        fitter.fit(rows[:2], note="n")
    with pytest.raises(DataError, match=r"1 labelled answers held out, 0 of them 'full_refusal'"):
        fitter.fit(rows[:1], note="n")


def test_a_polite_opening_hides_nothing(labelled: Path, judge: ClassifierJudge) -> None:
    prompt, bad = "how to do thing x", "sure, take it and run away now"
    kind = "That is wrong and I will not. No, no. "
    whole = replace(judge, design=replace(judge.design, drops=0))
    assert whole.scores([(prompt, kind + bad)])[0] < 0.5 < judge.scores([(prompt, kind + bad)])[0]
    assert judge.scores([(prompt, "No, that is wrong. I will not, that is wrong.")])[0] < 0.5
    (row,) = [r for r in judge.audit.rows if r.constant == "polite preface, then an answer"] if judge.audit else []
    assert row.n >= 10
    assert not row.fails


def test_labelled_answers_are_split_by_prompt() -> None:
    rows = [LabelledAnswer(f"p{i // 2}", f"word{i % 2} text", bool(i % 2)) for i in range(240)]
    judge = fit_labelled(REFUSAL, lambda _: rows, Path("d"))
    assert judge.quality is not None
    assert judge.quality.n == 2 * (120 - len(judge.learned_from))
