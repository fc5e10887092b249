"""Train a model on a CPU in less time and memory, where its steps are long enough for it to pay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trl.kernels.chunked_logprob as kernels
from peft.helpers import disable_input_dtype_casting
from trl.trainer import utils

__all__ = ["TILE", "rows_at_once", "thrifty"]

_WORTH = 5e10
"""Operations of a forward pass beside which the overhead of one more pass is small."""
TILE = (512, 4096)
"""Tokens and words whose logits are held at once."""


def rows_at_once(device: str, n_parameters: int, tokens: float, n_rows: int) -> int | None:
    """Return the fewest rows of a step of `n_rows` that are worth a pass of their own; None: leave the step whole.

    Rows seen together are padded to the longest, and all of them are held until the backward pass: fewer at once are
    faster and smaller, until a pass is mostly overhead. Small models and accelerators see a step at once.

    Args:
        device: "cpu", or an accelerator.
        n_parameters: of the model.
        tokens: that a row has, on average.
        n_rows: rows of a step.
    """
    of_a_row = 2 * tokens * n_parameters
    if device != "cpu" or of_a_row * n_rows < 2 * _WORTH:
        return None
    return max(1, min(n_rows, round(_WORTH / of_a_row)))


@contextmanager
def thrifty(wrapped: Any) -> Iterator[None]:
    """Return a context in which TRL makes logits of responses alone, in small tiles, and adapters read what is there.

    TRL scores every position where it has no fused kernel, and throws away those without a label. PEFT casts what an
    adapter reads to fp32; under autocast its matrices are cast instead, which are far smaller.
    """
    before = utils._use_triton, utils._CHUNKED_LOGPROB_CHUNK_SIZE, kernels.TOKEN_CHUNK_SIZE
    utils._use_triton = lambda device: True  # asked there only whether to leave out positions without a label
    kernels.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE = TILE
    try:
        with disable_input_dtype_casting(wrapped, active=wrapped.dtype.itemsize < 4):
            yield
    finally:
        utils._use_triton, utils._CHUNKED_LOGPROB_CHUNK_SIZE, kernels.TOKEN_CHUNK_SIZE = before
