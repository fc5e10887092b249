"""Greedy decoding, step by step, so that the first token and the others are timed apart."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import DynamicCache

from mocae.models import Beginning, layer_inputs, resumed

__all__ = ["Cached", "Decoder", "Ensemble", "Remembering", "Uncached"]


class Decoder(Protocol):
    """One generation: `prefill` once, then `step` for each further token. Both return the next token, (B, 1)."""

    def prefill(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
        """Read the prompts and return the first new token of each."""
        ...

    def step(self, tokens: Int[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        """Take the last tokens and return the next ones."""
        ...


class Cached:
    """Decodes with a KV cache: each step runs one token."""

    def __init__(self, model: nn.Module, *, config: Any) -> None:
        self._model = model
        self._cache = DynamicCache(config=config)

    def prefill(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
        """Return the first new tokens."""
        return _best(self.logits(ids))

    def step(self, tokens: Int[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        """Return the next tokens."""
        return _best(self.logits(tokens))

    def logits(self, ids: Tensor) -> Tensor:
        """Return the logits of the last position, (B, 1, V), and remember what was read."""
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits
        return logits


class Remembering(Cached):
    """Decodes with a KV cache and takes over how a prompt begins, once a decoder has read it with the same memory.

    Args:
        model: a decoder model.
        layer: layers below it take over what is remembered.
        memory: beginnings by prompts, shared by the decoders of one system.
        share: of the prompt that is taken over.
        config: the model's.
    """

    def __init__(
        self, model: nn.Module, *, layer: int, memory: dict[Tensor, list[Beginning]], share: float, config: Any
    ) -> None:
        super().__init__(model, config=config)
        self._layer, self._memory, self._share = layer, memory, share

    def prefill(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
        """Return the first new tokens."""
        rows, width = ids.shape
        if ids in self._memory:
            with resumed(self._model, self._cache, self._memory[ids], [width] * rows):
                return super().prefill(ids)
        with layer_inputs(self._model, self._layer, stop=False) as entered:
            tokens = super().prefill(ids)
        begin = slice(0, int(width * self._share))
        self._memory[ids] = [Beginning.read(self._cache, entered[0], self._layer, row, begin) for row in range(rows)]
        return tokens


class Uncached:
    """Decodes without a cache: each step runs the whole text again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._ids: Tensor | None = None

    def prefill(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
        """Return the first new tokens."""
        self._ids = ids
        return _best(self._model(input_ids=ids, use_cache=False, logits_to_keep=1).logits)

    def step(self, tokens: Int[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        """Return the next tokens."""
        assert self._ids is not None
        return self.prefill(torch.cat([self._ids, tokens], dim=1))


class Ensemble:
    """Decodes with several whole models whose probabilities are averaged."""

    def __init__(self, members: Sequence[Cached]) -> None:
        self._members = members

    def prefill(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B 1"]:
        """Return the first new tokens."""
        return _best(torch.stack([member.logits(ids).softmax(-1) for member in self._members]).mean(0))

    def step(self, tokens: Int[Tensor, "B 1"]) -> Int[Tensor, "B 1"]:
        """Return the next tokens."""
        return self.prefill(tokens)


def _best(logits: Tensor) -> Tensor:
    return logits[:, -1:].argmax(-1)
