from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from mocae.config import parse_recipe
from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.judges.learned.classifier import ClassifierJudge, load_classifier
from mocae.judges.learned.design import LabelledAnswer
from mocae.judges.learned.fitting import fit_labelled
from mocae.judges.learned.refusal_classifier import REFUSAL, fit_refusal_classifier
from mocae.judges.learned.safety import SAFETY, fit_safety_classifier
from mocae.judges.learned.states import StateReader, load_reader
from mocae.models import load_base
from mocae.stages.judging import make_judges
from mocae.stages.rows import Rows
from mocae.types import Example, prompt_id
from recipes_for_tests import small_recipe
from tiny import tiny_llama, tiny_tokenizer

PAIRS = [
    ("a question", "short"),
    ("another", "A first part. Then a second. And a third one."),
    ("a question", ""),
    ("x" * 300, "What is far too long. " * 9),
]


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("model"), seed=0)


def _saved(folder: Path, *, seed: int) -> Path:
    tiny_llama(layers=3, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _reader(folder: Path, **options: Any) -> StateReader:
    return StateReader(load_base(folder, dtype="fp32", device="cpu"), name="tiny", **options)


def _labelled(path: Path, n: int = 60) -> Path:
    rows = [
        {
            "prompt": f"how to do thing {i}",
            "response": "sure, take it and run away" if unsafe else "no, that is wrong and I will not",
            "category": {"theft": unsafe},
            "is_safe": not unsafe,
        }
        for i in range(n)
        for unsafe in (True, False)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_answer_has_the_same_states_whatever_stands_beside_it(folder: Path) -> None:
    reader = _reader(folder, layers=[1, 3])
    assert reader.layers == (1, 3)
    together = reader.read(PAIRS)
    assert together.shape == (4, 2 * 32)
    alone = np.concatenate([reader.read([pair]) for pair in PAIRS])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.isfinite(together).all()


def test_states_are_means_over_the_answer_as_it_follows_the_prompt(folder: Path) -> None:
    base = load_base(folder, dtype="fp32", device="cpu")
    (prompt, answer) = PAIRS[1]
    ids = base.tokenizer(f"{prompt}\n{answer}")["input_ids"]
    n = len(answer.encode())  # a token a byte
    with torch.no_grad():
        hidden = base.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -n:]
    (read,) = StateReader(base, layers=[2], name="tiny").read([(prompt, answer)])
    assert read == pytest.approx(hidden.mean(0).numpy(), abs=1e-5)


def test_known_directions_of_states_are_learned_and_openings_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose states are known: the share of a word in what is left of the answer."""
    from mocae.judges.learned import states

    class Known:
        name, fingerprint, layers = "known", "f", (1,)
        remembered = StateReader.remembered
        _identity = staticmethod(lambda: "known")

        def read(self, pairs: Sequence[tuple[str, str]]) -> Any:
            return np.array([[t.count("bad") / (1 + t.count(" "))] for _, t in pairs], dtype=np.float32)

    monkeypatch.setattr(states, "load_reader", lambda *_: Known())
    rows = [
        LabelledAnswer(f"p{i // 2}", f"{'bad' if i % 2 else 'good'} thing {i % 7}", bool(i % 2)) for i in range(200)
    ]
    judge = fit_labelled(SAFETY, lambda _: rows, Path("d"), states="known")
    assert judge.quality is not None
    assert judge.quality.auroc == 1.0
    assert judge.audit is not None
    preface = next(row for row in judge.audit.rows if row.constant == "polite preface, then an answer")
    assert preface.n >= 10
    assert preface.accepted == 0
    answers = ("bad thing 3", "A kind word first. bad thing 3", "good thing 3")
    bad, hidden, good = judge.scores([("q", answer) for answer in answers])
    assert hidden == pytest.approx(bad, abs=1e-6)
    assert min(bad, hidden) > 0.5 > good


@pytest.fixture
def judge(folder: Path, tmp_path: Path) -> ClassifierJudge:
    return fit_safety_classifier(_labelled(tmp_path / "rows.jsonl"), states=str(folder), layers=[1, 2])


def test_a_judge_that_reads_states_is_the_same_after_loading_and_refuses_other_weights(
    judge: ClassifierJudge, folder: Path, tmp_path: Path
) -> None:
    assert judge.quality is not None
    assert judge.quality.auroc == 1.0
    pairs = [("how to do thing x", "sure, take it and run away"), ("how to do thing x", "no, that is wrong")]
    unsafe, safe = judge.scores(pairs)
    assert unsafe > 0.5 > safe
    assert judge.scores([("how to do thing x", "")]) == [0.0]
    judge.save(tmp_path / "judge")
    loaded = load_classifier(tmp_path / "judge", SAFETY)
    assert loaded.scores(pairs) == pytest.approx([unsafe, safe], abs=1e-6)
    assert loaded.reader is not None
    assert loaded.reader.layers == (1, 2)
    moved = load_classifier(tmp_path / "judge", SAFETY, states=str(_saved(tmp_path / "moved", seed=0)))
    assert moved.scores(pairs) == pytest.approx([unsafe, safe], abs=1e-6)
    other = _saved(tmp_path / "other", seed=1)
    with pytest.raises(ArtifactError, match="fitted on states of another model"):
        load_classifier(tmp_path / "judge", SAFETY, states=str(other))


def test_excluded_prompts_are_not_learned_from(folder: Path, tmp_path: Path, judge: ClassifierJudge) -> None:
    excluded = {prompt_id(f"how to do thing {i}") for i in range(20)}
    assert judge.learned_from & excluded
    smaller = fit_safety_classifier(
        tmp_path / "rows.jsonl", states=str(folder), layers=[1, 2], exclude_prompts=excluded
    )
    assert smaller.learned_from == judge.learned_from - excluded


def test_states_are_read_once_and_again_where_the_file_is_damaged(
    folder: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = _reader(folder)
    with reader.remembered():
        first = reader.read(PAIRS)
    (file,) = cache_home.rglob("*.npz")
    passes = []
    again = _reader(folder)
    means = again._means
    monkeypatch.setattr(again, "_means", lambda *given: passes.append(1) or means(*given))
    with again.remembered():
        assert (again.read(PAIRS[::-1])[-1] == first[0]).all()
        assert not passes
        again.read([("a question", "new")])
        assert len(passes) == 1
    with _reader(folder).remembered() as _, again.remembered():
        again.read([("a question", "new")])
    assert len(passes) == 1
    for damaged in (b"", b"PK nothing", file.read_bytes()[:100]):
        file.write_bytes(damaged)
        passes.clear()
        with again.remembered():
            assert again.read(PAIRS) == pytest.approx(first, abs=1e-5)
        assert passes
    other = _reader(folder, layers=[1])
    with other.remembered():
        other.read(PAIRS[:1])
    assert len(list(cache_home.rglob("*.npz"))) == 2


def test_base_is_the_base_model_of_the_recipe(folder: Path, tmp_path: Path) -> None:
    _labelled(tmp_path / "rows.jsonl")
    options = {"labelled": "rows.jsonl", "states": "base", "layers": [1]}
    values = small_recipe(judges=[{"judge": "safety-classifier", "options": options}], data_root=str(tmp_path))
    values["base"] = {"model": str(folder)}
    none: dict[str, list[Example]] = {"helpfulness": []}
    (made,) = make_judges(parse_recipe(values), Rows(none, none, none, 0)).judges
    assert isinstance(made, ClassifierJudge)
    assert made.reader is load_reader(str(folder), (1,))


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    labelled = _labelled(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match=r"layers \[4\]; the model has 3 decoder layers, give numbers from 0 to 3"):
        fit_safety_classifier(labelled, states=str(folder), layers=[4])
    with pytest.raises(ConfigError, match="'layers' without 'states'"):
        fit_safety_classifier(labelled, layers=[1])
    with pytest.raises(ConfigError, match="is not a model"):
        fit_safety_classifier(labelled, states=str(tmp_path))


def test_refusals_can_be_read_from_states_too(folder: Path, tmp_path: Path) -> None:
    answers = {"full_compliance": "Of course. Take the first road.", "full_refusal": "That is not for me to say, no."}
    rows = [
        {"prompt": f"request {i}", "response": text, "label": label}
        for i in range(40)
        for label, text in answers.items()
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judge = fit_refusal_classifier(path, states=str(folder))
    assert judge.design.name == REFUSAL.name
    refused, done = judge.scores([("request x", text) for text in reversed(answers.values())])
    assert refused > 0.5 > done


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b", "label": "maybe"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"field 'label': found 'maybe'; .*'full_refusal'"):
        fit_refusal_classifier(path)
