from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mocae.errors import ModelMismatchError
from mocae.models import decoder_layers
from mocae_rivals.feed_forward import FeedForwardMixture, mix_feed_forward
from tiny import ARCHITECTURES, random_ids, tiny_deepseek_v3, tiny_llama


def test_top2_is_the_two_largest_renormalised() -> None:
    torch.manual_seed(0)
    mixture = FeedForwardMixture([nn.Linear(4, 4) for _ in range(3)], hidden=4, top_k=2)
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        probs = mixture.gate(x).softmax(-1)
        weights = probs.masked_fill(probs == probs.min(-1, keepdim=True).values, 0)
        weights = weights / weights.sum(-1, keepdim=True)
        expected = sum(weights[..., k, None] * expert(x) for k, expert in enumerate(mixture.experts))
        torch.testing.assert_close(mixture(x), expected)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "deepseek-v3"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_a_mixture_of_copies_is_the_block(architecture: str, top_k: int) -> None:
    model, ids = ARCHITECTURES.get(architecture, tiny_deepseek_v3)(), random_ids(2, 7)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        mixtures = mix_feed_forward(model, n_experts=3, top_k=top_k, from_layer=1)
        assert list(mixtures) == [1]
        torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_copies_are_no_part_of_the_base_unless_shared() -> None:
    model = tiny_llama(layers=1)
    before = set(map(id, model.parameters()))
    own = mix_feed_forward(copy.deepcopy(model), n_experts=2, top_k=1)[0]
    shared = mix_feed_forward(model, n_experts=2, top_k=1, share_first=True)[0]
    assert all(id(p) in before for p in shared.experts[0].parameters())
    assert not any(id(p) in before for p in (*own.experts.parameters(), *shared.experts[1].parameters()))


def test_experts_in_another_format_leave_that_of_the_model() -> None:
    model, ids = tiny_llama(layers=2).to(torch.bfloat16), random_ids(2, 5)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        (mixture, _) = mix_feed_forward(model, n_experts=2, top_k=1, dtype=torch.float32).values()
        assert {p.dtype for p in mixture.parameters()} == {torch.float32}
        found = model(input_ids=ids).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected.float(), atol=0.1, rtol=0.1)


def test_a_layer_without_one_block_is_refused() -> None:
    model = tiny_llama(layers=1)
    decoder_layers(model)[0].other = nn.Linear(2, 2)
    with pytest.raises(ModelMismatchError, match=r"no single feed-forward block .*found: mlp, other\)"):
        mix_feed_forward(model, n_experts=2, top_k=1)
