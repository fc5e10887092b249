"""Routing of every token: the policy reads in each pass, prefill and decoding alike."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.errors import ConfigError
from mocae.experts import Pool, PrefixPool
from mocae.models import at_layer
from mocae.policies.base import Reading

__all__ = ["on_every_pass"]


@contextmanager
def on_every_pass(
    model: nn.Module,
    reading: Reading,
    mask: Tensor | None,
    copies: int,
    put: Callable[[Float[Tensor, "R T P"], Float[Tensor, "R P"] | None], None],
) -> Iterator[None]:
    """Call `put` in each pass with what is read at every token, and in the first with that of each row's last token.

    Args:
        model: the base model.
        reading: where to read.
        mask: (B, T), which tokens of the prompts are no padding; None: as the passes themselves are told.
        copies: rows of a pass that repeat one prompt.
        put: routes; gets fp32 tensors on the CPU.
    """
    pool = PrefixPool(cast(Pool, reading.pool))
    n_before, told, first = 0, mask, True

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal n_before, told
        cache = kwargs.get("past_key_values")
        n_before = 0 if cache is None else int(cache.get_seq_length())
        if mask is None:
            given = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
            if isinstance(given, Tensor) and given.dim() != 2:
                raise ConfigError(
                    f"the pass is told a mask of shape {tuple(given.shape)}; per-token routing needs one of (prompts, "
                    "tokens), given as `probe`"
                )
            told = given

    def see(hidden: Tensor) -> None:
        nonlocal first
        rows, n_tokens = hidden.shape[:2]
        seen = torch.ones(rows, n_before + n_tokens, dtype=torch.long, device=hidden.device)
        if told is not None:
            known = told.to(hidden.device).repeat_interleave(rows // len(told), dim=0)[:, : seen.shape[1]]
            if len(known) != rows:
                raise ConfigError(
                    f"the pass has {rows} rows and the prompts' mask {len(told)} ({copies} a prompt were announced); "
                    "per-token routing cannot follow rows that change"
                )
            seen[:, : known.shape[1]] = known  # tokens behind the prompt are no padding
        now = seen[:, n_before:]
        pooled = pool.update(hidden, now, n_before=n_before)
        last = None
        if first:
            positions = torch.arange(n_tokens, device=hidden.device)
            at = torch.where(now > 0, positions, -1).amax(1).clamp_min(0)
            last = pooled[torch.arange(rows, device=hidden.device), at].cpu()
            first = False
        put(pooled.cpu(), last)

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with at_layer(model, reading.layer, see):
            yield
    finally:
        handle.remove()
