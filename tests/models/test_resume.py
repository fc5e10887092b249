"""A pass that takes over a beginning leaves what a pass over the whole prompts leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from mocae.models import Beginning, can_resume, layer_inputs, resumed
from tiny import ARCHITECTURES, tiny_deepseek_v3, tiny_llama

LAYERS, WIDTH = 4, 24
LENGTHS, KNOWN = (24, 17), (14, 12)


def read(model: Any, ids: Tensor, lengths: tuple[int, ...]) -> tuple[dict[str, Any], Tensor]:
    """What a pass over prompts padded on the left is given, and which of its columns are no padding."""
    mask = torch.stack([torch.arange(WIDTH) >= WIDTH - n for n in lengths])
    given = {"input_ids": ids[: len(lengths)], "attention_mask": mask.long(), "use_cache": True}
    return given | {"position_ids": (mask.long().cumsum(-1) - 1).clamp_min(0)}, mask


@pytest.mark.parametrize("n_layers", [1, 3, 4])
@pytest.mark.parametrize("architecture", [*sorted(ARCHITECTURES), "deepseek-v3"])
@torch.no_grad()
def test_every_architecture_goes_on_from_a_beginning(architecture: str, n_layers: int) -> None:
    model = {**ARCHITECTURES, "deepseek-v3": tiny_deepseek_v3}[architecture](layers=LAYERS)
    assert can_resume(model)
    ids = torch.randint(0, 256, (2, WIDTH), generator=torch.Generator().manual_seed(4))
    for lengths in (LENGTHS[:1], LENGTHS):  # without padding there is no mask to cut
        given, mask = read(model, ids, lengths)
        whole, cache = DynamicCache(), DynamicCache()
        with layer_inputs(model, n_layers, stop=False) as entered:
            expected = model(**given, past_key_values=whole).logits
        beginnings = [
            Beginning.read(
                whole, entered[0] if n_layers < LAYERS else None, n_layers, row, slice(WIDTH - n, WIDTH - n + known)
            )
            for row, (n, known) in enumerate(zip(lengths, KNOWN, strict=False))
        ]
        with resumed(model, cache, beginnings, lengths):
            found = model(**given, past_key_values=cache).logits
        n_seen = found.shape[1]
        assert n_seen == (WIDTH if n_layers < LAYERS else WIDTH - 14)
        torch.testing.assert_close(
            found[mask[:, -n_seen:]], expected[:, -n_seen:][mask[:, -n_seen:]], atol=1e-4, rtol=1e-4
        )
        for mine, theirs in zip(cache.layers, whole.layers, strict=True):
            torch.testing.assert_close(mine.keys[..., -7:, :], theirs.keys[..., -7:, :], atol=1e-4, rtol=1e-4)
            assert mine.keys.shape == theirs.keys.shape


def test_afterwards_the_model_is_as_before() -> None:
    model = tiny_llama()
    ids = torch.arange(12)[None]
    before = model(input_ids=ids).logits
    assert can_resume(model)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


class _Counting(nn.Module):
    """A layer that adds to its input how many tokens the pass has."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.self_attn = layer

    def forward(self, hidden_states: Tensor, **told: Any) -> Tensor:
        out = self.self_attn(hidden_states, **told)
        return torch.as_tensor(out) * hidden_states.shape[1]


def test_layers_that_look_at_the_whole_pass_cannot() -> None:
    model = tiny_llama()
    model.model.layers = nn.ModuleList(_Counting(layer) for layer in model.model.layers)
    assert not can_resume(model)


def test_parts_that_follow_each_other_are_one_beginning() -> None:
    whole = Beginning([torch.randn(2, 6, 4)], [torch.randn(2, 6, 4)], torch.randn(6, 8))
    assert whole.hidden is not None
    parts = [
        Beginning([whole.keys[0][:, part]], [whole.values[0][:, part]], whole.hidden[part])
        for part in (slice(0, 2), slice(2, 6))
    ]
    joined = Beginning.joined(parts)
    assert joined.hidden is not None
    assert torch.equal(joined.keys[0], whole.keys[0])
    assert torch.equal(joined.values[0], whole.values[0])
    assert torch.equal(joined.hidden, whole.hidden)
    assert (joined.n_layers, joined.n_tokens, joined.n_bytes) == (1, 6, 4 * (48 + 48 + 48))
