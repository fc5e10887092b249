"""Where a decoder layer has its feed-forward block."""

import re

from torch import nn

from mocae.errors import ModelMismatchError

__all__ = ["feed_forward", "feed_forward_name"]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)


def feed_forward_name(layer: nn.Module) -> str:
    """Return the name of a decoder layer's feed-forward block: its only part with linears that is no attention.

    Raises:
        ModelMismatchError: no part is one, or several are.
    """
    found = [
        name
        for name, part in layer.named_children()
        if any(isinstance(module, nn.Linear) for module in part.modules())
        and not _ATTENTION.search(f"{name} {type(part).__name__}")
    ]
    if len(found) != 1:
        raise ModelMismatchError(
            f"{type(layer).__name__} has no single feed-forward block (a part with linears beside attention; found: "
            f"{', '.join(found) or 'none'}); leave out the systems that mix feed-forward blocks"
        )
    return found[0]


def feed_forward(layer: nn.Module) -> nn.Module:
    """Return the feed-forward block of a decoder layer.

    Raises:
        ModelMismatchError: see `feed_forward_name`.
    """
    return layer.get_submodule(feed_forward_name(layer))
