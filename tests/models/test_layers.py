"""Layers and groups of linears are found without a look at the model's name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mocae.errors import ModelMismatchError
from mocae.models import decoder_layers, layer_index, linear_groups
from tiny import ARCHITECTURES, tiny_llama


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_and_groups_of_every_architecture(architecture: str) -> None:
    model = ARCHITECTURES[architecture](layers=2)
    assert decoder_layers(model) is model.model.layers
    expected = [
        tuple(f"model.layers.{i}.{block}.{name}" for name in names)
        for i in range(2)
        for block, names in (
            ("self_attn", ("q_proj", "k_proj", "v_proj")),
            ("self_attn", ("o_proj",)),
            ("mlp", ("gate_proj", "up_proj")),
            ("mlp", ("down_proj",)),
        )
    ]
    assert linear_groups(model) == [*expected, ("lm_head",)]


def test_only_the_names_asked_for_are_grouped() -> None:
    names = {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj", "lm_head"}
    groups = [("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"), ("lm_head",)]
    assert linear_groups(tiny_llama(layers=1), names=names) == groups


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = tiny_llama(layers=1).train()
    model.model.layers[0].mlp.eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    linear_groups(model)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_linear_that_runs_twice_stays_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.one, self.two = nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
            x = self.embed(input_ids)
            return self.one(self.one(x) + self.two(x))

    assert linear_groups(Twice()) == [("one",), ("two",)]


def test_linears_of_a_model_that_cannot_be_traced_stand_alone() -> None:
    assert linear_groups(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == [("0",), ("1",)]


def test_layers_that_cannot_be_found_are_refused_with_what_there_is() -> None:
    model = nn.Sequential(nn.ModuleList([nn.Linear(2, 2)]))
    with pytest.raises(ModelMismatchError, match=r"no list of decoder layers found in Sequential.*it has 0 \(1\)"):
        decoder_layers(model)


def test_layer_index_is_the_first_number() -> None:
    assert layer_index("model.layers.12.mlp.experts.3.w1") == 12
    assert layer_index("model.embed_tokens") is None
