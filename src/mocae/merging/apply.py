"""Putting a merge into a model: merged weights swapped in for a while."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

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
    linears = _checked(model, delta)
    before = {module: linear.weight for module, linear in linears.items()}
    try:
        for module, merged in _merged(linears, delta):
            linears[module].weight = nn.Parameter(merged, requires_grad=before[module].requires_grad)
        yield model
    finally:
        for module, weight in before.items():
            linears[module].weight = weight


def _merged(linears: dict[str, nn.Linear], delta: Delta) -> Iterator[tuple[str, Tensor]]:
    for module, linear in linears.items():
        weight = linear.weight.detach()
        with torch.no_grad():
            merged = delta.dense(module).to(weight.device) + weight  # fp32, the wider of the two dtypes
        yield module, merged.to(weight.dtype)


def _checked(model: nn.Module, delta: Delta) -> dict[str, nn.Linear]:
    modules, owner = dict(model.named_modules()), type(model).__name__
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)
    linears: dict[str, nn.Linear] = {}
    for name in delta.modules:
        module = modules.get(name)
        if not isinstance(module, nn.Linear):
            found = "there is no such module" if module is None else f"it is a {type(module).__name__}"
            raise ModelMismatchError(
                f"the merge changes {name!r}, but in {owner} {found}; merges change nn.Linear modules of the base "
                "model that the experts were trained on"
            )
        _refuse_unmergeable(name, module, delta.shape(name), tied=owners[id(module.weight)] > 1)
        linears[name] = module
    return linears


def _refuse_unmergeable(name: str, linear: nn.Linear, shape: tuple[int, int], *, tied: bool) -> None:
    weight, expected = linear.weight, (linear.out_features, linear.in_features)
    if weight.is_meta:
        raise ModelMismatchError(f"{name!r} is on the meta device; load the base model's weights first")
    # A quantised tensor of torchao calls itself a float; its type tells.
    if type(weight) is not nn.Parameter or not weight.is_floating_point() or tuple(weight.shape) != expected:
        raise ModelMismatchError(
            f"{name!r} is quantised ({weight.dtype}, {tuple(weight.shape)}); nothing can be merged into it. "
            "Load the base model in bf16"
        )
    if shape != expected:
        raise ModelMismatchError(
            f"the merge was made for another base model: {name!r} has (out, in) = {expected}, the merge has {shape}"
        )
    if tied:
        raise ModelMismatchError(
            f"the weight of {name!r} is tied to another module, which would change with it; untie it "
            "(tie_word_embeddings=false) or leave that linear out of the experts"
        )
