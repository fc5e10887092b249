"""Prompts that begin alike: the lower layers of a pass take over what an earlier pass has computed of the beginning.

A pass is given whole prompts, as ever. Below layer n it computes the tokens behind the known beginning alone; from
layer n on, where rows may have other weights than in the earlier pass, it computes all of them:

    layer >= n      . . q q q q q q      q computed, k taken over, . padding
    layer <  n      . . k k k q q q      (n may be the number of layers)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from mocae.models.entering import layer_inputs
from mocae.models.layers import decoder_layers

__all__ = ["Beginning", "can_resume", "resumed"]


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """What a pass has computed of the first N tokens of a prompt in its n lowest layers.

    Attributes:
        keys: n tensors (heads, N, size), with their positions in them.
        values: n tensors (heads, N, size).
        hidden: (N, width), what enters layer n; None where n is the number of layers.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    hidden: Tensor | None

    @property
    def n_layers(self) -> int:
        """Layers it holds."""
        return len(self.keys)

    @property
    def n_tokens(self) -> int:
        """Tokens it holds."""
        return int(self.keys[0].shape[1])

    @property
    def n_bytes(self) -> int:
        """Memory it holds."""
        return sum(t.numel() * t.element_size() for t in self._tensors())

    @classmethod
    def read(cls, cache: DynamicCache, hidden: Tensor | None, n_layers: int, row: int, tokens: slice) -> Beginning:
        """Return a copy of what a pass has left of some tokens of one row.

        Args:
            cache: of the pass.
            hidden: (B, T, width), what entered layer `n_layers`; None for all layers.
            n_layers: layers to keep.
            row: which prompt.
            tokens: columns of the pass.
        """
        layers: Any = cache.layers[:n_layers]
        return cls(
            [layer.keys[row, :, tokens].clone() for layer in layers],
            [layer.values[row, :, tokens].clone() for layer in layers],
            None if hidden is None else hidden[row, tokens].clone(),
        )

    @classmethod
    def joined(cls, parts: Sequence[Beginning]) -> Beginning:
        """Return one beginning of parts that follow each other."""
        hidden = [part.hidden for part in parts if part.hidden is not None]
        return cls(
            [torch.cat(of_layer, dim=1) for of_layer in zip(*(part.keys for part in parts), strict=True)],
            [torch.cat(of_layer, dim=1) for of_layer in zip(*(part.values for part in parts), strict=True)],
            torch.cat(hidden) if hidden else None,
        )

    def _tensors(self) -> Iterator[Tensor]:
        yield from (*self.keys, *self.values)
        if self.hidden is not None:
            yield self.hidden


@contextmanager
def resumed(
    model: nn.Module, cache: DynamicCache, beginnings: Sequence[Beginning], lengths: Sequence[int]
) -> Iterator[None]:
    """Return a context in which the next pass takes over the beginnings of its rows.

    Its lower layers compute as many tokens in every row, so a row with more known than others leaves some of it unused.

    Args:
        model: a decoder model, for which `can_resume` is true.
        cache: empty; given to the pass, as are all tokens, padded on the left, with their positions.
        beginnings: one a row, of equally many layers, each shorter than its prompt.
        lengths: tokens of each prompt.
    """
    layers = decoder_layers(model)
    n_layers, width = beginnings[0].n_layers, max(lengths)
    n_new = max(length - beginning.n_tokens for length, beginning in zip(lengths, beginnings, strict=True))
    n_known = width - n_new

    def known(parts: Sequence[Tensor]) -> Tensor:
        """Return what is known, (..., N, size) a row, as a batch in which all rows end at column `n_known`."""
        first = parts[0]
        batch = first.new_zeros(len(parts), *first.shape[:-2], n_known, first.shape[-1])
        for row, part, length in zip(batch, parts, lengths, strict=True):
            used = max(0, length - n_new)
            row[..., n_known - used :, :] = part[..., :used, :]
        return batch

    def new(value: Any) -> Any:
        """Return what belongs to the new tokens of something that a layer is given for each token."""
        if isinstance(value, tuple):
            return tuple(map(new, value))
        by_token = isinstance(value, Tensor) and value.dim() in (2, 3) and value.shape[1] == width
        return value[:, n_known:] if by_token else value

    def narrow(index: int) -> Any:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            keys = known([beginning.keys[index] for beginning in beginnings])
            values = known([beginning.values[index] for beginning in beginnings])
            cache.update(keys, values, index)  # not earlier: the model makes masks by what the cache holds
            mask = _last_rows(kwargs.get("attention_mask"), n_new, width, device=keys.device)
            return new(args), {name: new(value) for name, value in kwargs.items()} | {"attention_mask": mask}

        return before

    def widen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        before = known([beginning.hidden for beginning in beginnings if beginning.hidden is not None])
        if args:
            return (torch.cat([before, args[0]], dim=1), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": torch.cat([before, kwargs["hidden_states"]], dim=1)}

    with ExitStack() as stack:
        for index, layer in enumerate(layers[:n_layers]):
            stack.callback(layer.register_forward_pre_hook(narrow(index), with_kwargs=True).remove)
        if n_layers < len(layers):
            # First of all, so that whoever looks at what enters the layer sees whole prompts.
            handle = layers[n_layers].register_forward_pre_hook(widen, with_kwargs=True, prepend=True)
            stack.callback(handle.remove)
        yield


def _last_rows(mask: Any, n_new: int, width: int, *, device: torch.device) -> Any:
    """Return the rows of a mask that belong to the last tokens."""
    if mask is None:  # plain causal attention; kernels would take the first new token for the first of all
        return torch.ones(n_new, width, dtype=torch.bool, device=device).tril(width - n_new)[None, None]
    return mask[..., -n_new:, :] if isinstance(mask, Tensor) and mask.dim() == 4 else mask


@torch.no_grad()
def can_resume(model: Any) -> bool:
    """Return whether a model's layers can take over a beginning; tried on short prompts, never told from a name.

    False where layers need more of a pass than hidden states, a mask, positions and a cache of keys and values. In the
    trial the outcome must be far nearer to that of the whole prompts than to that without their beginnings.
    """
    n_layers, n_known, width = len(decoder_layers(model)), 3, 7
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    prompts = torch.arange(2 * width, device=model.device).reshape(2, width) % vocabulary

    def logits(lengths: Sequence[int], cache: DynamicCache, *, without: int = 0) -> Tensor:
        places = torch.arange(width, device=model.device)
        first = width - torch.tensor(lengths, device=model.device)[:, None]
        out = model(
            input_ids=prompts[: len(lengths)],
            attention_mask=(places >= first + without).long(),
            position_ids=(places - first).clamp_min(0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return torch.as_tensor(out).float()

    def works(lengths: Sequence[int], n: int) -> bool:
        read = DynamicCache()
        with layer_inputs(model, n, stop=False) as entered:
            whole = logits(lengths, read)
        hidden = entered[0] if n < n_layers else None
        spans = [slice(width - length, width - length + n_known) for length in lengths]
        beginnings = [Beginning.read(read, hidden, n, row, span) for row, span in enumerate(spans)]
        cache = DynamicCache()
        with resumed(model, cache, beginnings, lengths):
            found = logits(lengths, cache)
        wrong = (found - whole).norm()
        return bool(wrong < 0.1 * (logits(lengths, DynamicCache(), without=n_known) - whole).norm())

    try:
        return all(
            works(lengths, n) for n in {n_layers // 2, n_layers} - {0} for lengths in ((width,), (width, width - 2))
        )
    except Exception:  # any model code can run here, and refuse in any way
        return False
