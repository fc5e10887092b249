"""Mixtures of whole feed-forward blocks in the place of a decoder's own, and their files."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn

from mocae.errors import ArtifactError
from mocae.files import read_tensors
from mocae.models import decoder_layers, feed_forward_name

__all__ = ["FeedForwardMixture", "load_modules", "mix_feed_forward", "save_modules"]


class FeedForwardMixture(nn.Module):
    """Takes the place of a feed-forward block: a gate chooses `top_k` of the experts for each token.

    Experts and gate compute in their own dtype, which need not be that of the rest of the model.

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

    def weights(self, logits: Float[Tensor, "*rest K"]) -> Float[Tensor, "*rest K"]:
        """Return the weight of each expert from the gate's logits, in fp32: the `top_k` largest, with sum 1."""
        probs = logits.float().softmax(-1)
        if self.top_k == len(self.experts):
            return probs
        kept = torch.zeros_like(probs).scatter(-1, probs.topk(self.top_k, dim=-1).indices, 1.0)
        return probs * kept / (probs * kept).sum(-1, keepdim=True)

    def forward(self, hidden_states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the weighted sum of the chosen experts' outputs; an expert sees only the tokens that chose it."""
        tokens = hidden_states.flatten(0, 1).to(self.gate.weight.dtype)
        weights = self.weights(self.gate(tokens)).to(tokens.dtype)
        mixed = torch.zeros_like(tokens)
        for k, expert in enumerate(self.experts):
            if self.top_k == len(self.experts):
                mixed = mixed + expert(tokens[None])[0] * weights[:, k, None]
                continue
            rows = weights[:, k].nonzero()[:, 0]
            if len(rows):
                mixed.index_add_(0, rows, expert(tokens[rows][None])[0] * weights[rows, k, None])
        return mixed.view_as(hidden_states).to(hidden_states.dtype)


def mix_feed_forward(
    model: nn.Module,
    *,
    n_experts: int,
    top_k: int,
    from_layer: int = 0,
    dtype: torch.dtype | None = None,
    share_first: bool = False,
) -> dict[int, FeedForwardMixture]:
    """Replace feed-forward blocks by mixtures of copies of them, in place, and return the mixtures by layer.

    Args:
        model: a decoder.
        n_experts: blocks in each mixture.
        top_k: blocks a token uses.
        from_layer: first decoder layer whose block is replaced.
        dtype: of the copies and gates; None: that of the block.
        share_first: let the first expert be the block itself, so that only the others take memory.

    Raises:
        ModelMismatchError: a decoder layer has not exactly one feed-forward block.
    """
    layers = decoder_layers(model)
    names = {index: feed_forward_name(layers[index]) for index in range(from_layer, len(layers))}
    mixtures: dict[int, FeedForwardMixture] = {}
    for index, name in names.items():
        block = layers[index].get_submodule(name)
        hidden = next(m.in_features for m in block.modules() if isinstance(m, nn.Linear))
        copies = [copy.deepcopy(block).to(dtype) for _ in range(n_experts - share_first)]
        mixture = FeedForwardMixture([block, *copies] if share_first else copies, hidden=hidden, top_k=top_k)
        mixture.train(block.training)
        setattr(layers[index], name, mixture)
        mixtures[index] = mixture
    return mixtures


def save_modules(modules: Mapping[int, nn.Module], file: Path) -> None:
    """Write modules by decoder layer into a safetensors file, as "<layer>.<name>"."""
    tensors = {f"{i}.{name}": t.detach().contiguous() for i, m in modules.items() for name, t in m.state_dict().items()}
    save_file(tensors, str(file))


def load_modules(modules: Mapping[int, nn.Module], file: Path) -> None:
    """Read what `save_modules` wrote into modules of the same shape, in place.

    Raises:
        ArtifactError: the file is missing, damaged, or of other modules.
    """
    try:
        tensors = read_tensors(file)
        for layer, module in modules.items():
            start = f"{layer}."
            module.load_state_dict({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})
    except Exception as error:
        reason = " ".join(str(error).split())  # torch's list of what does not fit has several lines
        raise ArtifactError(f"{file}: it cannot be read ({reason}); run the recipe again") from error
