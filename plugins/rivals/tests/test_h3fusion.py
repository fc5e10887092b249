from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from choices_for_tests import assert_scores, one_by_one
from mocae.errors import ArtifactError, ConfigError, DataError, TrainingError
from mocae.experts import Optimisation, given_back
from mocae.models import LoadedBase, decoder_layers, feed_forward
from mocae_rivals.feed_forward import FeedForwardMixture, load_modules, save_modules
from mocae_rivals.h3fusion_training import (
    BLOCKS,
    H3FusionMixture,
    H3Losses,
    finetune_blocks,
    on_h3fusion,
    train_h3fusion,
)
from tiny import random_ids, tiny_llama, tiny_tokenizer

IDS = random_ids(3, 9, seed=4)
WORDS = ("aaaa", "mmmm", "zzzz")
ROWS = [(f"{word * (1 + i % 3)} ", "ok", axis) for i in range(4) for axis, word in enumerate(WORDS)]
SETTINGS: dict[str, Any] = {"learning_rate": 0.02, "epochs": 1, "batch_size": 4, "max_length": 64, "seed": 0}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Blocks of layers 2 and 3, tuned to answer with one letter each."""
    root, base = tmp_path_factory.mktemp("blocks"), LoadedBase(tiny_llama(), tiny_tokenizer())
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    folders = []
    for letter in "xyz":
        folder = root / letter
        folder.mkdir()
        record = finetune_blocks(
            base,
            [{"prompt": "Q: ", "completion": letter * 3}] * 4,
            folder,
            from_layer=2,
            optimisation=Optimisation(learning_rate=0.02, epochs=4.0, batch_size=4),
            seed=0,
            label=f"blocks {letter}",
        )
        assert record.last_loss < record.first_loss
        assert record.n_parameters == 2 * 3 * 32 * 64
        folders.append(folder)
    assert base.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    return folders


@contextmanager
def mixed(folders: list[Path], top_k: int = 2) -> Iterator[tuple[LoadedBase, dict[int, FeedForwardMixture]]]:
    base = LoadedBase(tiny_llama(), tiny_tokenizer())
    with given_back(base.model):
        yield base, on_h3fusion(base, folders, top_k=top_k, from_layer=2, seed=0)


@torch.no_grad()
def logits(base: LoadedBase) -> Tensor:
    found: Tensor = base.model(input_ids=IDS).logits
    return found


def test_a_mixture_of_one_is_that_expert(blocks: list[Path]) -> None:
    model = tiny_llama()
    untouched = logits(LoadedBase(model, tiny_tokenizer()))
    load_modules({i: feed_forward(decoder_layers(model)[i]) for i in (2, 3)}, blocks[1] / BLOCKS)
    expected = logits(LoadedBase(model, tiny_tokenizer()))
    assert (expected - untouched).abs().max() > 0.01
    with mixed(blocks[1:2], top_k=1) as (base, mixtures):
        assert list(mixtures) == [2, 3]
        torch.testing.assert_close(logits(base), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(base), untouched)


@pytest.mark.parametrize("train_experts", [True, False])
def test_gates_train_and_experts_if_asked(blocks: list[Path], train_experts: bool) -> None:
    with mixed(blocks) as (base, mixtures):
        before = [p.detach().clone() for m in mixtures.values() for p in m.experts.parameters()]
        gate = mixtures[2].gate.weight.detach().clone()
        record = train_h3fusion(base, mixtures, ROWS, losses=H3Losses(), train_experts=train_experts, **SETTINGS)
        after = [p for m in mixtures.values() for p in m.experts.parameters()]
        assert all(map(torch.equal, before, after)) is not train_experts
        assert not torch.equal(mixtures[2].gate.weight, gate)
        assert record.n_parameters == 2 * 3 * 32 + (sum(p.numel() for p in after) if train_experts else 0)
        assert record.gradient_norm > 0


def test_the_gating_loss_drives_the_gate_to_the_axis(blocks: list[Path]) -> None:
    with mixed(blocks) as (base, mixtures):
        options = SETTINGS | {"epochs": 10, "learning_rate": 0.05}
        train_h3fusion(base, mixtures, ROWS, losses=H3Losses(10.0, 0.0), train_experts=False, **options)
        ids = base.tokenizer([f"{word} " for word in WORDS], return_tensors="pt")["input_ids"]
        weights = H3FusionMixture(base, mixtures, "xyz").generate(ids, max_new_tokens=2, do_sample=False).weights
    assert weights.argmax(1).tolist() == [0, 1, 2]
    torch.testing.assert_close(weights.sum(1), torch.ones(3))


def test_choices_are_scored_with_every_token_gated(blocks: list[Path]) -> None:
    with mixed(blocks, top_k=1) as (base, mixtures):
        for mixture in mixtures.values():
            torch.nn.init.normal_(mixture.gate.weight, generator=torch.Generator().manual_seed(3))
        expected = one_by_one(base.model)
        assert_scores(H3FusionMixture(base, mixtures, "xyz"), expected)
    assert expected != one_by_one(base.model)


def test_gates_without_a_say_are_refused_though_experts_train(blocks: list[Path]) -> None:
    """One expert a token has weight 1 whatever its gate says; the experts' own gradient must not hide it."""
    with mixed(blocks, top_k=1) as (base, mixtures):
        with pytest.raises(TrainingError, match=r"gates and experts: it received no gradient from the language-model"):
            train_h3fusion(base, mixtures, ROWS, losses=H3Losses(), train_experts=True, **SETTINGS)


def test_regularisation_shrinks_the_experts(blocks: list[Path]) -> None:
    def size(regularisation: float) -> float:
        with mixed(blocks) as (base, mixtures):
            losses = H3Losses(0.0, regularisation)
            train_h3fusion(base, mixtures, ROWS, losses=losses, train_experts=True, **SETTINGS)
            return sum(float(p.square().sum()) for m in mixtures.values() for p in m.experts.parameters())

    assert size(10.0) < size(0.0)


def test_saved_and_loaded_is_the_same(blocks: list[Path], tmp_path: Path) -> None:
    with mixed(blocks) as (base, mixtures):
        train_h3fusion(base, mixtures, ROWS, losses=H3Losses(), train_experts=True, **SETTINGS)
        expected = logits(base)
        save_modules(mixtures, tmp_path / "h3fusion.safetensors")
    with mixed(blocks) as (base, mixtures):
        assert not torch.equal(logits(base), expected)
        load_modules(mixtures, tmp_path / "h3fusion.safetensors")
        assert torch.equal(logits(base), expected)


def test_what_does_not_fit_is_refused(blocks: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="H3Fusion: top_k is 4, but there are 3 experts"), mixed(blocks, top_k=4):
        pass
    with mixed(blocks) as (base, mixtures):
        with pytest.raises(ArtifactError, match=r"h3fusion\.safetensors: it cannot be read .*run the recipe again"):
            load_modules(mixtures, tmp_path / "h3fusion.safetensors")
        with pytest.raises(ArtifactError, match=r"blocks\.safetensors: it cannot be read .*run the recipe again"):
            load_modules({0: mixtures[2].experts[0]}, blocks[0] / BLOCKS)
        with pytest.raises(DataError, match="H3Fusion gates: it needs training rows, got none"):
            train_h3fusion(base, mixtures, [], losses=H3Losses(), train_experts=False, **SETTINGS)
