from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mocae.pocket.world import AXES, probe_rows
from mocae.prompts import FORMATS
from pocket_corpus import documents
from pretrain_pocket import BOS, EOS, IGNORED, PAD, Settings, _batches, _learning_rate, score, train_tokenizer
from tiny import tiny_llama

SMALL = Settings(vocab_size=320, batch_size=3, length=120, steps=20, warmup_steps=4)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    def some(seed: int) -> Iterator[Any]:
        return itertools.islice(documents(seed), 100)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretrain_pocket.documents", some)
        return train_tokenizer(SMALL)


def test_the_tokenizer_reads_back_what_it_wrote(tokenizer: Any) -> None:
    assert len(tokenizer) == 320
    ids = tokenizer("Q: Straße 5?\nA:").input_ids
    assert tokenizer.decode(ids) == f"{BOS}Q: Straße 5?\nA:"
    assert (tokenizer.padding_side, tokenizer.eos_token, tokenizer.pad_token) == ("left", EOS, PAD)


def test_batches_hold_whole_turns_and_learn_all_but_padding(tokenizer: Any) -> None:
    ids, labels = next(_batches(tokenizer, SMALL))
    assert ids.shape == labels.shape == (3, 120)
    vocabulary = tokenizer.get_vocab()
    for row, targets in zip(ids, labels, strict=True):
        kept = row[targets != IGNORED]
        assert kept[0] == vocabulary[BOS]
        assert kept[-1] == vocabulary[EOS]
        assert torch.equal(kept, targets[targets != IGNORED])
        assert (row[targets == IGNORED] == vocabulary[PAD]).all()


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [_learning_rate(step, SMALL) for step in range(SMALL.steps)]
    assert rates[0] == SMALL.learning_rate / 4
    assert max(rates) == rates[3] == rates[4] == SMALL.learning_rate
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] > 0


def test_an_untrained_model_scores_nothing(tokenizer: Any) -> None:
    model = tiny_llama(layers=1, hidden=8, vocab=320, max_position_embeddings=512)
    scores = score(model, tokenizer, "test", n=4)
    assert set(scores) == {"task", "harmful", "benign", "misconception", "invented", "unanswerable"}
    assert set(scores.values()) == {0.0}


class Parrot:
    """Stands in for a model that knows the proper answers."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        plain = FORMATS.get("plain")
        rows = [row for axis in AXES for row in probe_rows(axis, "test", n=4)]
        self.answers = {plain.format_prompt(r.prompt, injection=None): r.facts["proper"][0] for r in rows}

    def eval(self) -> None: ...

    def generate(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        prompts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        texts = [self.answers[prompt] for prompt in prompts]
        ids = self.tokenizer(texts, padding=True, return_tensors="pt").input_ids
        return torch.cat([input_ids, ids], dim=1)


def test_proper_answers_score_everything(tokenizer: Any) -> None:
    assert set(score(Parrot(tokenizer), tokenizer, "test", n=4).values()) == {1.0}
