"""One linear with its experts stacked: y = W x + B (g * (A x)).

A is (sum of ranks, in), B is (out, sum of ranks), g repeats alpha_k * scaling_k over the ranks of expert k.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank.gates import Gates, Layout
from mocae.errors import ModelMismatchError

__all__ = ["BankLinear", "Stack", "is_plain"]

_ALIGNMENT_BYTES = 64


class BankLinear:
    """Takes the place of one linear's `forward` while a bank is attached; the module itself stays where it is.

    Args:
        name: the linear's name in the model.
        linear: the linear.
        layout: which stacked ranks belong to which expert.
        factors: A (R, in) and B (out, R), all experts stacked, in the layout's dtype.
        gates: the weights in force.
    """

    def __init__(
        self, name: str, linear: nn.Linear, *, layout: Layout, factors: tuple[Tensor, Tensor], gates: Gates
    ) -> None:
        self.name = name
        self.linear = linear
        self.original: Callable[[Tensor], Tensor] = linear.forward
        self.layout = layout
        self.A, self.B = factors
        self.slot = gates.slot(layout)
        self._gates = gates
        self._stack: Stack | None = None
        self._index = 0

    def join(self, stack: "Stack", index: int, *, factors: tuple[Tensor, Tensor]) -> None:
        """Let a stack compute from now on; A and B become views of what it holds."""
        self._stack, self._index, (self.A, self.B) = stack, index, factors

    def __call__(self, input: Tensor) -> Tensor:  # torch's own name: callers may use the keyword
        """Return the linear's output with the weights in force; a result without experts is the base model's own.

        Raises:
            ConfigError: the weights have other rows or tokens than the input.
            ModelMismatchError: the model was moved or replaced since the bank was attached.
        """
        if not self._gates.on:
            return self.original(input)
        if self._stack is None or torch.is_grad_enabled():
            return self._alone(input)
        return self._stack.take(input, self._index)

    def merged(self, alpha: Float[Tensor, " K"]) -> Float[Tensor, "out_features in_features"]:
        """Return the linear's weight with constant expert weights merged in: summed in fp32, then cast."""
        g = self._gates.expand(alpha, self.slot)
        weight = self.linear.weight.detach()
        return torch.addmm(weight.float(), self.B.float(), g[:, None] * self.A.float()).to(weight.dtype)

    def _alone(self, x: Tensor) -> Tensor:
        self._gates.refuse_misfit(x)
        base = self.original(x)
        if self._gates.span(self.slot) == (0, 0):
            return base
        return base + F.linear(F.linear(x, self.A) * self._gates.g(self.slot), self.B)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbours in a stack of equal output size and ranks: their B side by side, multiplied in one call.

    Attributes:
        slot: layout of each of them.
        factors: their B transposed, (linears, R, out); rows of an expert not in use can be left out.
        first_column: where the run begins in the product.
        first_rank: where the run begins among the ranks of the stack.
    """

    slot: int
    factors: Float[Tensor, "run R out_features"]
    first_column: int
    first_rank: int

    def add(self, product: Tensor, gated: Tensor, ranks: tuple[int, int]) -> None:
        """Add B (g * (A x)) to the run's part of the product, in place; both tensors are contiguous and whole."""
        factors, (start, stop) = self.factors, ranks
        linears, r, out = factors.shape
        if stop - start < r:
            factors = factors[:, start:stop]
        width, n_ranks, first = product.shape[-1], gated.shape[-1], self.first_rank + start
        rows = product.numel() // width
        # Strides in place of views: each view costs a call, and calls are what a decoding step is made of.
        if linears == 1:
            target = product.as_strided((rows, out), (width, 1), self.first_column)
            low = gated.as_strided((rows, stop - start), (n_ranks, 1), first)
            target.addmm_(low, factors[0])
        else:
            target = product.as_strided((linears, rows, out), (out, width, 1), self.first_column)
            low = gated.as_strided((linears, rows, stop - start), (r, n_ranks, 1), first)
            target.baddbmm_(low, factors)


class Stack:
    """Linears that read the same input: their W and A in one matrix, so that one product serves them all.

    The matrix is stored once. `weight` and `bias` of the linears become views of it and their Parameters stay the
    same objects, so a state dict sees nothing of it. `release` gives each linear a tensor of its own again. What the
    experts say is added to the product in place, for neighbours of equal shape in one call: q, k and v with their
    experts take one product, one multiplication and one batched product.

    Args:
        members: linears with equal input size, dtype and device that are in no stack; this stack computes for them
            from now on.
        gates: the weights in force.
    """

    def __init__(self, members: Sequence[BankLinear], gates: Gates) -> None:
        self._gates = gates
        self._slot = gates.slot(Layout.joined([member.layout for member in members]))
        self._originals = [member.original for member in members]
        self._linears = [member.linear for member in members]
        sizes, ranks = [linear.out_features for linear in self._linears], [member.A.shape[0] for member in members]
        self._cuts = [*sizes, sum(ranks)]
        with torch.no_grad():
            self._matrix = torch.cat([*(m.linear.weight.detach() for m in members), *(m.A for m in members)])
            self._bias = self._stacked_bias()
        *weights, factors = self._matrix.split_with_sizes(self._cuts)
        for linear, weight in zip(self._linears, weights, strict=True):
            linear.weight.data = weight
        if self._bias is not None:
            for linear, bias in zip(self._linears, self._bias.split_with_sizes(self._cuts), strict=False):
                if linear.bias is not None:
                    linear.bias.data = bias
        self._runs = list(_runs(members))
        transposed = [b.t() for run in self._runs for b in run.factors]
        for index, pair in enumerate(zip(factors.split_with_sizes(ranks), transposed, strict=True)):
            members[index].join(self, index, factors=pair)
        self._places = [linear.weight.data_ptr() for linear in self._linears]
        self._input: Tensor | None = None
        self._version = 0
        self._parts: list[Tensor | None] = []
        self._n_left = 0

    @staticmethod
    def accepts(linear: nn.Linear) -> bool:
        """Return whether a linear can join a stack: not quantised, not wrapped, rows on a 64-byte boundary.

        A row slice then starts where a tensor of its own would, and the base product is bit-equal to the original.
        """
        wrapped = type(linear) is not nn.Linear or "forward" in vars(linear)
        aligned = linear.in_features * linear.weight.element_size() % _ALIGNMENT_BYTES == 0
        return not wrapped and is_plain(linear) and aligned

    def take(self, x: Tensor, index: int) -> Tensor:
        """Return one linear's output with the weights in force, a view of the shared product. No gradient.

        The product is made when the first linear asks and dropped when the last has taken its part. A part is handed
        out once: asked again, or for another or a changed input, the product is made anew.

        Raises:
            ConfigError: the weights have other rows or tokens than the input.
            ModelMismatchError: the model was moved or replaced since the bank was attached.
        """
        version = 0 if x.is_inference() else x._version
        part = self._parts[index] if x is self._input and version == self._version else None
        if part is None:
            self._refuse_moved()
            self._gates.refuse_misfit(x)
            if self._gates.span(self._slot) == (0, 0):
                return self._originals[index](x)
            parts = self._mixed(x)
            self._input, self._version, self._parts, self._n_left = x, version, [*parts], len(parts)
            part = parts[index]
        self._parts[index] = None
        self._n_left -= 1
        if not self._n_left:
            self.forget()
        return part

    def forget(self) -> None:
        """Drop a product that not every linear has taken from."""
        self._input, self._parts = None, []

    def release(self) -> None:
        """Give each linear tensors of its own again, with the values they have now."""
        self.forget()
        for linear in self._linears:
            linear.weight.data = linear.weight.data.clone()
            if linear.bias is not None:
                linear.bias.data = linear.bias.data.clone()

    def _mixed(self, x: Tensor) -> Sequence[Tensor]:
        product = F.linear(x, self._matrix, self._bias)
        *outputs, low = product.split_with_sizes(self._cuts, -1)
        gated = low * self._gates.g(self._slot)
        if gated.dtype != product.dtype or not gated.is_contiguous():  # under autocast
            gated = gated.to(product.dtype).contiguous()
        for run in self._runs:
            ranks = self._gates.span(run.slot)
            if ranks[1]:
                run.add(product, gated, ranks)
        return outputs

    def _stacked_bias(self) -> Tensor | None:
        if all(linear.bias is None for linear in self._linears):
            return None
        bias = self._matrix.new_zeros(self._matrix.shape[0])
        for linear, part in zip(self._linears, bias.split_with_sizes(self._cuts), strict=False):
            if linear.bias is not None:
                part.copy_(linear.bias)
        return bias

    def _refuse_moved(self) -> None:
        for linear, place in zip(self._linears, self._places, strict=True):
            weight = linear._parameters["weight"]  # `linear.weight` goes through nn.Module's slow lookup
            if weight is None or weight.data_ptr() != place:
                raise ModelMismatchError(
                    "the base model's weights were moved or replaced while a bank is attached "
                    "(model.to, model.half, ...); detach the bank, change the model, attach again"
                )


def is_plain(linear: nn.Linear) -> bool:
    """Return whether a weight is an ordinary matrix of floats, so that something can be added to it."""
    weight = linear.weight
    # A quantised tensor of torchao calls itself a float; its type tells.
    floats = type(weight) is nn.Parameter and weight.is_floating_point()
    return floats and weight.shape == (linear.out_features, linear.in_features)


def _runs(members: Sequence[BankLinear]) -> Iterator[_Run]:
    """Yield the runs of a stack: neighbours whose B have one shape and whose ranks belong to the same experts."""

    def alike(member: BankLinear) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        return (member.linear.out_features, member.layout.experts, member.layout.ranks)

    column = rank = 0
    for (out, _, ranks), neighbours in groupby(members, key=alike):
        run = list(neighbours)
        factors = torch.stack([member.B.t() for member in run])
        yield _Run(run[0].slot, factors, first_column=column, first_rank=rank)
        column += len(run) * out
        rank += len(run) * sum(ranks)
