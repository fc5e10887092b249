"""Mixtures of whole feed-forward blocks: the rivals that hold a full block an expert."""

import copy
import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.errors import ModelMismatchError
from mocae.models import decoder_layers

__all__ = ["FeedForwardMixture", "mix_feed_forward"]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


class FeedForwardMixture(nn.Module):
    """Takes the place of a feed-forward block: a gate chooses `top_k` of the experts for each token.

    Args:
        experts: whole blocks.
        hidden: size of the block's input.
        top_k: experts a token uses; the number of experts makes it dense.

    Reference:
        arXiv:2411.17792 (H3Fusion), section 3: a mixture of the feed-forward blocks of aligned models.
    """

    def __init__(self, experts: list[nn.Module], *, hidden: int, top_k: int) -> None:
        super().__init__()
        first = next(experts[0].parameters())
        self.experts = nn.ModuleList(experts)
        self.gate = nn.Linear(hidden, len(experts), bias=False, dtype=first.dtype, device=first.device)
        self.top_k = top_k

    def forward(self, hidden_states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the weighted sum of the chosen experts' outputs; an expert sees only the tokens that chose it."""
        tokens = hidden_states.flatten(0, 1)
        probs = self.gate(tokens).float().softmax(-1)
        if self.top_k == len(self.experts):
            dense = sum(expert(tokens) * probs[:, k, None].to(tokens.dtype) for k, expert in enumerate(self.experts))
            assert isinstance(dense, Tensor)
            return dense.view_as(hidden_states)
        weights, chosen = probs.topk(self.top_k, dim=-1)
        weights = (weights / weights.sum(-1, keepdim=True)).to(tokens.dtype)
        mixed = torch.zeros_like(tokens)
        for k, expert in enumerate(self.experts):
            rows, place = (chosen == k).nonzero(as_tuple=True)
            if len(rows):
                mixed.index_add_(0, rows, expert(tokens[rows]) * weights[rows, place, None])
        return mixed.view_as(hidden_states)


def mix_feed_forward(model: nn.Module, *, n_experts: int, top_k: int) -> nn.Module:
    """Return `model` with each feed-forward block replaced, in place; the first expert is the block itself.

    Raises:
        ModelMismatchError: a decoder layer has not exactly one feed-forward block (a child with linears, no attention).
    """
    for index, layer in enumerate(decoder_layers(model)):
        blocks = [
            (name, child)
            for name, child in layer.named_children()
            if any(isinstance(m, nn.Linear) for m in child.modules())
            and not _ATTENTION.search(f"{name} {type(child).__name__}")
        ]
        if len(blocks) != 1:
            found = ", ".join(name for name, _ in blocks) or "none"
            raise ModelMismatchError(
                f"decoder layer {index} of {type(model).__name__} has no single feed-forward block (found: {found}); "
                "leave the feed-forward mixtures out with --systems"
            )
        name, block = blocks[0]
        hidden = next(m.in_features for m in block.modules() if isinstance(m, nn.Linear))
        experts = [block, *(copy.deepcopy(block) for _ in range(n_experts - 1))]
        setattr(layer, name, FeedForwardMixture(experts, hidden=hidden, top_k=top_k))
    return model
