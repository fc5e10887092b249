from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skops")

from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.judges.learned.classifier import load_classifier
from mocae.judges.learned.encoder import load_encoder
from mocae.judges.learned.refusal_classifier import REFUSAL, fit_refusal_classifier
from tiny import tiny_llama, tiny_tokenizer

TEXTS = ["short", "a much longer text than the first one", "", "another"]


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("encoder"), seed=0)


def _saved(folder: Path, *, seed: int) -> Path:
    tiny_llama(layers=1, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _labelled(path: Path, n: int = 60) -> Path:
    answers = {
        "full_compliance": "Of course. Take the first road and then the second.",
        "partial_refusal": "I would rather leave that be. However, here is a list of roads.",
        "full_refusal": "That is not for me to say, dear friend.",
    }
    rows = [
        {"prompt": f"request {i}", "response": text, "label": label}
        for i in range(n)
        for label, text in answers.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_text_has_one_unit_vector_whatever_stands_beside_it(encoder_folder: Path) -> None:
    encoder = load_encoder(str(encoder_folder))
    together = encoder.encode(TEXTS)
    assert together.shape == (4, 32)
    assert np.linalg.norm(together[[0, 1, 3]], axis=1) == pytest.approx(1, abs=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        assert encoder.encode([text])[0] == pytest.approx(vector, abs=1e-5)
    assert not together[2].any()
    both = encoder.pairs([("short", "another"), ("short", "short")])
    assert both == pytest.approx(np.concatenate([together[[0, 0]], together[[3, 0]]], axis=1), abs=1e-5)
    with pytest.raises(DataError, match="no texts; expected at least one"):
        encoder.encode([])


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder .* cannot be loaded: .*Accepted: a folder or hub id"):
        load_encoder(str(tmp_path))


def test_a_judge_with_an_encoder_is_the_same_after_loading_and_refuses_other_weights(
    encoder_folder: Path, tmp_path: Path
) -> None:
    labelled = _labelled(tmp_path / "rows.jsonl")
    judge = fit_refusal_classifier(labelled, encoder=str(encoder_folder))
    assert judge.quality is not None
    assert judge.quality.auroc == 1.0
    pairs = [("request x", "That is not for me to say."), ("request x", "Of course. Take the first road.")]
    refused, done = judge.scores(pairs)
    assert refused > 0.5 > done
    judge.save(tmp_path / "judge")
    loaded = load_classifier(tmp_path / "judge", REFUSAL)
    assert loaded.scores(pairs) == pytest.approx([refused, done], abs=1e-6)
    other = _saved(tmp_path / "other", seed=1)
    with pytest.raises(ArtifactError, match="fitted with an encoder of other weights"):
        load_classifier(tmp_path / "judge", REFUSAL, encoder=str(other))


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b", "label": "maybe"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"field 'label': found 'maybe'; .*'full_refusal'"):
        fit_refusal_classifier(path)
