"""What the engine remembers of prompts it has read, for prompts that begin alike: a system prompt, an earlier turn.

Kept in blocks of tokens, so that prompts share what they have in common. Below the layer where a router reads and the
first expert sits, states are those of the base model, whatever weights a prompt is given: other prompts may take them
over. Above it they may only where the weights are the same, which is known in advance of policies that read no prompt.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from torch import Tensor
from transformers.cache_utils import DynamicCache

from mocae.models import Beginning, can_resume, decoder_layers
from mocae.policies import Mixture, Policy, PromptBatch

__all__ = ["Prefixes", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """Which states of a prompt others may take over.

    Attributes:
        n_layers: the lowest layers, so many.
        alpha: the weights they were computed with, as bytes; b"" where they depend on none.
    """

    n_layers: int
    alpha: bytes


class Prefixes:
    """Blocks of states, those used last; one thread uses it.

    Args:
        mixture: the model. One whose layers cannot take over a beginning (`can_resume`) has nothing kept.
        max_bytes: memory they may take; 0: nothing is kept.
        block_tokens: tokens of a block.

    Attributes:
        n_layers: layers of the model.
        n_bytes: memory they take.
    """

    def __init__(self, mixture: Mixture, *, max_bytes: int, block_tokens: int = 32) -> None:
        self.n_layers = len(decoder_layers(mixture.base.model))
        self._first_layer = mixture.bank.first_layer
        self._block_tokens = block_tokens
        self._max_bytes = max_bytes if max_bytes and can_resume(mixture.base.model) else 0
        self._blocks: OrderedDict[tuple[Reach, bytes], Beginning] = OrderedDict()
        self.n_bytes = 0

    def reach(self, policy: Policy, prompt_id: str, n_tokens: int) -> Reach | None:
        """Return what of a prompt with this policy others can take over; None: nothing.

        Raises:
            MocaeError: the policy does not know the prompt.
        """
        if not self._max_bytes or n_tokens <= self._block_tokens:
            return None
        if policy.reads is None:
            alpha = policy.route(PromptBatch([prompt_id]))[0]
            return Reach(self.n_layers, alpha.float().cpu().numpy().tobytes())
        lowest = min(self._first_layer, self.n_layers if policy.output is None else policy.output.from_layer)
        # A router that reads above an expert runs the base model once more, up to there.
        n_layers = policy.reads.layer if policy.reads.layer <= lowest else 0
        return Reach(n_layers, b"") if 0 < n_layers < self.n_layers else None

    def find(self, tokens: Sequence[int], reach: Reach | None) -> Beginning | None:
        """Return what is known of a prompt's beginning, where that is at least half of it, the last token left out."""
        if reach is None:
            return None
        known = []
        for key in self._keys(tokens[:-1], reach):
            if key not in self._blocks:
                break
            known.append(key)
        for key in reversed(known):  # a block is of no use without those before it, so these are forgotten later
            self._blocks.move_to_end(key)
        if 2 * len(known) * self._block_tokens < len(tokens):
            return None
        return Beginning.joined([self._blocks[key] for key in known])

    def keep(
        self, tokens: Sequence[int], reach: Reach, *, row: int, cache: DynamicCache, hidden: Tensor | None
    ) -> None:
        """Keep the blocks of a prompt that were not known.

        Args:
            tokens: the prompt.
            reach: see `reach`.
            row: of the pass.
            cache: what the pass has computed, rows ending at the last column.
            hidden: (B, T, width), what entered layer `reach.n_layers`; None for all layers.
        """
        first = cache.get_seq_length() - len(tokens)
        for i, key in enumerate(self._keys(tokens, reach)):
            if key in self._blocks:
                continue
            begin = first + i * self._block_tokens
            block = Beginning.read(cache, hidden, reach.n_layers, row, slice(begin, begin + self._block_tokens))
            self._blocks[key] = block
            self.n_bytes += block.n_bytes
        while self.n_bytes > self._max_bytes:
            self.n_bytes -= self._blocks.popitem(last=False)[1].n_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self.n_bytes = 0

    def _keys(self, tokens: Sequence[int], reach: Reach) -> list[tuple[Reach, bytes]]:
        """Return the key of each whole block: a digest of all tokens up to its end, which its states depend on."""
        keys, digest = [], b""
        for end in range(self._block_tokens, len(tokens) + 1, self._block_tokens):
            block = array("q", tokens[end - self._block_tokens : end]).tobytes()
            digest = blake2b(digest + block, digest_size=32).digest()
            keys.append((reach, digest))
        return keys
