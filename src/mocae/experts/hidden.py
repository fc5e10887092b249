"""Hidden states of prompts as vectors: what the router reads and what experts change."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocae.distributed import spread
from mocae.errors import DataError
from mocae.models import StopForward, is_sharded, layer_inputs
from mocae.progress import bar

__all__ = ["Pool", "pool_hidden", "pooled_states"]

Pool = Literal["mean", "last", "mean+last"]


def pool_hidden(
    hidden: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"] | Float[Tensor, "B T"], *, pool: Pool
) -> Float[Tensor, "B P"]:
    """Return one fp32 vector a row: masked mean, last token, or both side by side (P = D or 2 D).

    The last token is the last one the mask shows, so padding on either side changes nothing.
    """
    states = hidden.float()
    seen = mask.to(states.dtype)
    parts = []
    if pool in ("mean", "mean+last"):
        shown = states.masked_fill(seen[..., None] == 0, 0)  # padding may hold nan, which times 0 is nan
        parts.append((shown * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp_min(1))
    if pool in ("last", "mean+last"):
        positions = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask > 0, positions, -1).amax(1).clamp_min(0)
        parts.append(states[torch.arange(len(states), device=states.device), last])
    return torch.cat(parts, dim=-1)


@torch.no_grad()
def pooled_states(
    model: Any, tokenizer: Any, texts: Sequence[str], *, layer: int, pool: Pool, batch_size: int = 32, label: str = ""
) -> Float[Tensor, "N P"]:
    """Return the pooled input of decoder layer `layer` for each text, fp32 on the CPU, in the order of the texts.

    Several processes share the batches.

    Args:
        model: a decoder model.
        tokenizer: its tokenizer, with a pad token; either padding side.
        texts: formatted prompts; special tokens are added as the tokenizer adds them to any text.
        layer: see `at_layer`.
        pool: see `pool_hidden`.
        batch_size: texts a pass; batches hold texts of similar length.
        label: what the progress bar says, "" for none.

    Raises:
        DataError: no texts.
        ConfigError: the model has fewer layers.
    """
    if not texts:
        raise DataError(f"{label or 'hidden states'}: no prompts to read; give at least one")
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with bar(len(batches), label) if label else nullcontext() as shown:

        def read(some: Sequence[int]) -> Tensor:
            batch = tokenizer([texts[i] for i in some], return_tensors="pt", padding=True, return_token_type_ids=False)
            batch = batch.to(model.device)
            with layer_inputs(model, layer, stop=True) as collected, suppress(StopForward):
                model(**batch, use_cache=False)
            if shown is not None:
                shown.advance()
            return pool_hidden(collected[0], batch["attention_mask"], pool=pool).cpu()

        pooled = spread(batches, read, lockstep=is_sharded(model))
        if shown is not None:
            shown.finish()
    rows = {i: row for some, part in zip(batches, pooled, strict=True) for i, row in zip(some, part, strict=True)}
    return torch.stack([rows[i] for i in range(len(texts))])
