"""Pooling for every token: what the router would read if the text ended there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocae.errors import ConfigError
from mocae.experts.hidden import Pool

__all__ = ["PrefixPool"]


class PrefixPool:
    """Pools each token with what stands before it, over the passes of one generation.

    Row t is what `pool_hidden` makes of the tokens up to t: mean over them, token t itself, or both side by side. So a
    router fitted on whole prompts reads what it was fitted on, and at the end of the prompt what it reads per prompt.

    Args:
        pool: see `mocae.experts.pool_hidden`.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._n_read = 0
        self._sum: Tensor | None = None  # (B, 1, D) over the tokens read
        self._count: Tensor | None = None  # (B, 1, 1)

    def update(
        self, hidden: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"], *, n_before: int = 0
    ) -> Float[Tensor, "B T P"]:
        """Return one fp32 vector a token; that of padding is finite and means nothing.

        Args:
            hidden: states of the tokens of this pass.
            mask: which of them are no padding.
            n_before: tokens in the cache, read in earlier passes; 0 starts anew.

        Raises:
            ConfigError: other tokens are in the cache than were read here.
        """
        seen = mask[..., None].float()
        states = hidden.float().masked_fill(seen == 0, 0)  # padding may hold nan
        if n_before == 0:
            self._sum, self._count = torch.zeros_like(states[:, :1]), torch.zeros_like(seen[:, :1])
        elif n_before != self._n_read or self._sum is None or self._count is None or len(self._sum) != len(states):
            raise ConfigError(
                f"per-token routing has read {self._n_read} tokens and the cache holds {n_before}; it needs every "
                "token from the first, so no cache from before and no assisted decoding"
            )
        sums, counts = self._sum + states.cumsum(1), self._count + seen.cumsum(1)
        self._n_read = n_before + states.shape[1]
        self._sum, self._count = sums[:, -1:], counts[:, -1:]
        parts = []
        if self.pool in ("mean", "mean+last"):
            parts.append(sums / counts.clamp_min(1))
        if self.pool in ("last", "mean+last"):
            parts.append(states)
        return torch.cat(parts, dim=-1)
