"""From experts to stacked linears: check that they fit the model, concatenate them, group what shares an input."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from mocae.bank.adapters import LoraWeights
from mocae.bank.gates import Gates, Layout
from mocae.bank.linear import BankLinear, Stack
from mocae.errors import ModelMismatchError

__all__ = ["bank_linears", "stacks"]


def bank_linears(model: nn.Module, experts: Mapping[str, LoraWeights], *, gates: Gates) -> list[BankLinear]:
    """Return one stacked linear for each that some expert adapts, in the order of the model; nothing is attached yet.

    Raises:
        ModelMismatchError: an expert adapts a module that is missing, no linear, or of another shape.
    """
    for name, expert in experts.items():
        _refuse_misfit(model, name, expert)
    adapted = {name for expert in experts.values() for name in expert.layers}
    return [
        _bank_linear(name, module, experts=experts, gates=gates, dtype=_compute_dtype(model, module))
        for name, module in model.named_modules()
        if name in adapted and isinstance(module, nn.Linear)
    ]


def stacks(linears: Sequence[BankLinear], groups: Iterable[Sequence[str]], *, gates: Gates) -> Iterator[Stack]:
    """Stack each group of linears, split where dtype, device or input size differ, and yield each once in force."""
    by_name = {member.name: member for member in linears}
    for group in groups:
        alike: dict[object, list[BankLinear]] = {}
        for member in (by_name[name] for name in group if Stack.accepts(by_name[name].linear)):
            weight = member.linear.weight
            alike.setdefault((weight.dtype, weight.device, member.linear.in_features), []).append(member)
        for members in alike.values():
            yield Stack(members, gates)


def _refuse_misfit(model: nn.Module, expert_name: str, expert: LoraWeights) -> None:
    modules, owner = dict(model.named_modules()), type(model).__name__
    base = expert.base_model or "not recorded"
    if not expert.layers:
        raise ModelMismatchError(f"expert {expert_name!r} adapts no linear; train it with target_modules")
    for name, pair in expert.layers.items():
        module = modules.get(name)
        if not isinstance(module, nn.Linear):
            found = "there is no such module" if module is None else f"it is a {type(module).__name__}"
            raise ModelMismatchError(
                f"expert {expert_name!r} adapts {name!r}, but in {owner} {found}; experts sit on nn.Linear modules "
                f"of the base model they were trained on ({base})"
            )
        if module.weight.is_meta:
            raise ModelMismatchError(f"{name!r} is on the meta device; load the base model's weights first")
        shape, expected = (pair.B.shape[0], pair.A.shape[1]), (module.out_features, module.in_features)
        if shape != expected:
            raise ModelMismatchError(
                f"expert {expert_name!r} was trained for another base model ({base}): {name!r} has (out, in) = "
                f"{expected} in {owner}, the adapter has {shape}. Use that base model, or train the expert again"
            )
        if not (torch.isfinite(pair.A).all() and torch.isfinite(pair.B).all()):
            raise ModelMismatchError(f"expert {expert_name!r} is not finite at {name!r}; train it again")


def _bank_linear(
    name: str, linear: nn.Linear, *, experts: Mapping[str, LoraWeights], gates: Gates, dtype: torch.dtype
) -> BankLinear:
    pairs = [(k, e.layers[name]) for k, e in enumerate(experts.values()) if name in e.layers]
    layout = Layout(
        experts=tuple(k for k, _ in pairs),
        ranks=tuple(pair.r for _, pair in pairs),
        scalings=tuple(pair.scaling for _, pair in pairs),
        device=linear.weight.device,
        dtype=dtype,
    )
    a = torch.cat([pair.A.detach().to(layout.device, layout.dtype) for _, pair in pairs], dim=0)
    b = torch.cat([pair.B.detach().to(layout.device, layout.dtype) for _, pair in pairs], dim=1)
    return BankLinear(name, linear, layout=layout, factors=(a, b), gates=gates)


def _compute_dtype(model: nn.Module, linear: nn.Linear) -> torch.dtype:
    """Return the dtype a linear works in; a quantised weight holds integers, so the rest of the model tells."""
    if linear.weight.is_floating_point():
        return linear.weight.dtype
    return next(p.dtype for p in model.parameters() if p.is_floating_point())
