from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mocae.errors import ConfigError, DataError
from mocae.experts import pool_hidden, pooled_states
from mocae.models import LoadedBase, StopForward, at_layer, decoder_layers, layer_inputs
from tiny import ARCHITECTURES, random_ids, tiny_llama

POOLS = ("mean", "last", "mean+last")


@torch.no_grad()
def run(model: Any, ids: Tensor, **inputs: Any) -> Any:
    return model(ids, **inputs)


def last_before_norm(model: Any, ids: Tensor) -> Tensor:
    """What leaves the last layer; Hugging Face's own last hidden state is after the final norm."""
    found: list[Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    run(model, ids)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layer_inputs_are_hugging_faces_hidden_states(architecture: str) -> None:
    model, ids = ARCHITECTURES[architecture](layers=3), random_ids(2, 10)
    states = run(model, ids, output_hidden_states=True).hidden_states
    expected = [*states[:3], last_before_norm(model, ids)]
    assert torch.equal(model.model.norm(expected[3]), states[3])
    for layer in range(4):
        for stop in (True, False):
            with layer_inputs(model, layer, stop=stop) as collected, suppress(StopForward):
                run(model, ids)
            assert len(collected) == 1
            assert torch.equal(collected[0], expected[layer])


def test_a_stopped_pass_runs_no_layer_above_and_leaves_no_trace() -> None:
    model, ids = tiny_llama(layers=3), random_ids(1, 5)
    before = run(model, ids).logits
    ran: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(decoder_layers(model))
    ]
    with layer_inputs(model, 2, stop=True), pytest.raises(StopForward):
        run(model, ids)
    assert ran == [0, 1]
    for handle in handles:
        handle.remove()
    assert torch.equal(run(model, ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_every_pass_is_seen_and_only_inside_the_context() -> None:
    model, ids = tiny_llama(layers=2), random_ids(1, 5)
    seen: list[tuple[int, ...]] = []
    with at_layer(model, 1, lambda hidden: seen.append(tuple(hidden.shape))):
        run(model, ids)
        run(model, ids[:, :2])
    run(model, ids)
    assert seen == [(1, 5, 32), (1, 2, 32)]


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_the_model_does_not_have_is_refused(layer: int) -> None:
    message = rf"layer {layer} asked for; the model has 2 decoder layers \(0 to 2\)"
    with pytest.raises(ConfigError, match=message), layer_inputs(tiny_llama(layers=2), layer, stop=True):
        pass


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool_hidden(hidden, mask, pool="mean").tolist() == [[1.5, 15.0]]
    assert pool_hidden(hidden, mask, pool="last").tolist() == [[2.0, 20.0]]
    assert pool_hidden(hidden, mask.flip(1), pool="last").tolist() == [[6.0, 60.0]]
    assert pool_hidden(hidden, mask, pool="mean+last").tolist() == [[1.5, 15.0, 2.0, 20.0]]
    assert pool_hidden(hidden.bfloat16(), mask, pool="mean").dtype is torch.float32


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    pool=st.sampled_from(POOLS),
    noise=st.sampled_from([0.0, 1e6, float("nan"), float("inf")]),
)
def test_padding_on_either_side_changes_nothing(lengths: list[int], extra: int, pool: Any, noise: float) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    width = max(lengths) + extra
    rows = [torch.randn(n, 3, generator=generator) for n in lengths]
    alone = torch.cat([pool_hidden(row[None], torch.ones(1, len(row)), pool=pool) for row in rows])
    for left in (True, False):
        hidden, mask = torch.full((len(rows), width, 3), noise), torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            hidden[i, place], mask[i, place] = row, 1
        torch.testing.assert_close(pool_hidden(hidden, mask, pool=pool), alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pool", POOLS)
def test_pooled_states_are_each_text_alone_in_order(base: LoadedBase, side: str, pool: Any) -> None:
    base.tokenizer.padding_side = side
    texts = ["a longer text than the others", "b", "of middle size", "b"]
    together = pooled_states(base.model, base.tokenizer, texts, layer=1, pool=pool, batch_size=3)
    assert together.dtype is torch.float32
    for text, row in zip(texts, together, strict=True):
        ids = torch.tensor([base.tokenizer(text)["input_ids"]])
        hidden = run(base.model, ids, output_hidden_states=True).hidden_states[1][0]
        parts = {"mean": [hidden.mean(0)], "last": [hidden[-1]], "mean+last": [hidden.mean(0), hidden[-1]]}[pool]
        torch.testing.assert_close(row, torch.cat(parts), atol=1e-5, rtol=1e-5)


def test_no_texts_are_refused(base: LoadedBase) -> None:
    with pytest.raises(DataError, match="prompts honesty: no prompts to read"):
        pooled_states(base.model, base.tokenizer, [], layer=1, pool="mean", label="prompts honesty")
