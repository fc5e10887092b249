"""Putting a merge into a model: merged weights swapped in for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mocae.bank import refuse_unmergeable, swapped
from mocae.errors import ModelMismatchError
from mocae.merging.base import Delta

__all__ = ["applied"]


@contextmanager
def applied(model: nn.Module, delta: Delta) -> Iterator[nn.Module]:
    """Return a context in which the model's weights are W + delta, and after it the original tensors again.

    Nothing is subtracted: the parameters that were there are put back, also after an error. Sums are fp32, then cast
    to the dtype of the weight. Inside, `state_dict` and `save_pretrained` see the merged model; memory holds a second
    copy of the changed weights and one linear's fp32 change at a time. A bank on the model must be off.

    Args:
        model: the base model, in place.
        delta: what a merge method returned, or a task vector.

    Raises:
        ModelMismatchError: a linear is missing, of another shape, quantised, not loaded, or tied to another module.
    """
    linears = _linears(model, delta)
    refuse_unmergeable(model, linears)
    merged = {linear: _merged(linear, delta, name) for name, linear in linears.items()}
    with swapped(merged):
        yield model


def _merged(linear: nn.Linear, delta: Delta, name: str) -> nn.Parameter:
    weight = linear.weight.detach()
    with torch.no_grad():
        total = delta.dense(name).to(weight.device) + weight  # fp32, the wider of the two dtypes
    return nn.Parameter(total.to(weight.dtype), requires_grad=linear.weight.requires_grad)


def _linears(model: nn.Module, delta: Delta) -> dict[str, nn.Linear]:
    modules, owner = dict(model.named_modules()), type(model).__name__
    linears: dict[str, nn.Linear] = {}
    for name in delta.modules:
        module = modules.get(name)
        if not isinstance(module, nn.Linear):
            kind = "there is no such module" if module is None else f"it is a {type(module).__name__}"
            raise ModelMismatchError(
                f"the merge changes {name!r}, but in {owner} {kind}; merges change nn.Linear modules of the base "
                "model that the experts were trained on"
            )
        expected = (module.out_features, module.in_features)
        if delta.shape(name) != expected:
            raise ModelMismatchError(
                f"the merge was made for another base model: {name!r} has (out, in) = {expected}, the merge has "
                f"{delta.shape(name)}"
            )
        linears[name] = module
    return linears
