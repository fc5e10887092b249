"""Where things sit in a Transformer, found from its modules and one traced forward pass, never from its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from mocae.errors import ModelMismatchError

__all__ = ["context_length", "count_tokens", "decoder_layers", "layer_index", "linear_groups"]

_SPECIAL = 8
"""More tokens than a tokenizer adds around a text, or than a cut can change."""
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def context_length(model: Any) -> int:
    """Return the most tokens a model was made to read; a very large number where its configuration does not say."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 1 << 30)


def count_tokens(tokenizer: Any, text: str, *, enough: int) -> int:
    """Return the number of tokens of a text; of one with more than `enough`, a smaller number that is too large too.

    Reading a text of megabytes takes gigabytes, so it is read from its beginning, in parts that double.
    """
    size = 4 * enough + _SPECIAL
    while size < len(text):
        n = len(tokenizer(text[:size], verbose=False).input_ids)
        if n > enough + _SPECIAL:  # what was cut may join the last of them to fewer
            return n - _SPECIAL
        size *= 2
    return len(tokenizer(text, verbose=False).input_ids)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers: the longest `ModuleList` of one class that holds attention.

    Raises:
        ModelMismatchError: nothing fits.
    """
    fitting = [m for m in model.modules() if isinstance(m, nn.ModuleList) and _is_decoder(m)]
    if not fitting:
        raise ModelMismatchError(
            f"no list of decoder layers found in {type(model).__name__}: one ModuleList of one class with attention "
            f"is needed, and it has {_module_lists(model)}; use a Transformer with decoder layers as base model"
        )
    return max(fitting, key=len)


def layer_index(module_name: str) -> int | None:
    """Return the number of the layer a module sits in, None for a module outside all layers.

    The first number in the name counts, so experts of a sparse layer belong to that layer.

    >>> layer_index("model.layers.3.mlp.experts.5.up_proj")
    3
    >>> layer_index("lm_head") is None
    True
    """
    numbers = (int(part) for part in module_name.split(".") if part.isdecimal())
    return next(numbers, None)


def linear_groups(model: nn.Module, *, names: Collection[str] | None = None) -> list[tuple[str, ...]]:
    """Return names of linears that receive the same input tensor, one tuple a group (q, k, v; gate, up).

    The groups are seen, not guessed: one token is run through the model, and linears that are handed the very
    same tensor form a group. Linears that did not run, or ran more than once, stay alone, and so do all where the
    model does not run on one token. Every name asked for is in exactly one group; order is that of the model. The pass
    takes no gradient and leaves the model as it was.

    Args:
        model: a causal language model.
        names: linears to look at, all `nn.Linear` when None.
    """
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    wanted = linears if names is None else [name for name in linears if name in names]
    groups: dict[object, list[str]] = {}
    inputs = _traced_inputs(model, wanted)
    for name in wanted:
        seen = inputs[name]
        groups.setdefault(id(seen[0]) if len(seen) == 1 else name, []).append(name)
    return [tuple(group) for group in groups.values()]


def _is_decoder(layers: nn.ModuleList) -> bool:
    if not len(layers) or len({type(layer) for layer in layers}) != 1:
        return False
    return any(_ATTENTION.search(f"{name} {type(m).__name__}") for name, m in layers[0].named_modules() if name)


def _module_lists(model: nn.Module) -> str:
    found = [f"{name} ({len(m)})" for name, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    return ", ".join(found) or "none"


def _traced_inputs(model: nn.Module, names: list[str]) -> dict[str, list[Tensor]]:
    """Return what each linear was handed in one pass over one token; tensors are kept so that ids stay unique."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}
    modules = dict(model.named_modules())

    def keeper(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs[name].append(args[0])

    handles = [modules[name].register_forward_pre_hook(keeper(name)) for name in names]
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()  # dropout would draw random numbers
        device = next(model.parameters()).device
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
    except Exception:  # any model code can run here; without groups every linear is computed by itself
        return {name: [] for name in names}
    finally:
        for module, was in training:
            module.training = was
        for handle in handles:
            handle.remove()
    return inputs
