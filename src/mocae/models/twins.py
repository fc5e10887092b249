"""Module trees of their own over one base model's weights, so that several systems can change it side by side."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from mocae.errors import ConfigError
from mocae.models.load import LoadedBase

__all__ = ["Twins"]


class Twins:
    """Makes twins of a base model: other modules, the same weights in memory.

    What is attached to one twin (hooks, adapters, merged weights) is not seen by another, and each may be used by a
    thread of its own. Make it while nothing is attached to the base model; twins may be made later.

    Args:
        base: model and tokenizer.

    Raises:
        ConfigError: something is attached to the base model.
    """

    def __init__(self, base: LoadedBase) -> None:
        attached = [n for n, m in base.model.named_modules() if "forward" in vars(m) or m._forward_pre_hooks]
        if attached:
            raise ConfigError(f"{attached[0]}: something is attached to the base model; make twins before")
        self._base = base
        # A copy without storage: it keeps nothing alive when the base model's weights are replaced.
        empty = {id(t): _without_storage(t) for t in (*base.model.parameters(), *base.model.buffers())}
        self._shape: Any = copy.deepcopy(base.model, empty)

    def make(self) -> LoadedBase:
        """Return a twin: its parameters are objects of their own on the memory that the base model's have now."""
        model: Any = copy.deepcopy(self._shape)
        shared: dict[int, Any] = {}
        for twin, module in zip(model.modules(), self._base.model.modules(), strict=True):
            for held, ours in ((twin._parameters, module._parameters), (twin._buffers, module._buffers)):
                for name, tensor in ours.items():
                    held[name] = None if tensor is None else shared.setdefault(id(tensor), _same_memory(tensor))
        return LoadedBase(model.eval(), self._base.tokenizer, self._base.description)


def _without_storage(tensor: torch.Tensor) -> Any:
    empty = torch.empty_like(tensor.detach(), device="meta") if type(tensor) in (nn.Parameter, torch.Tensor) else None
    if empty is None:  # a packed tensor of a quantisation library, which knows its own storage alone
        return tensor
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _same_memory(tensor: Any) -> Any:
    return nn.Parameter(tensor.data, requires_grad=False) if type(tensor) is nn.Parameter else tensor
