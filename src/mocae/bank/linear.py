"""One linear with its experts stacked: y = W x + B (g * (A x)).

A is (sum of ranks, in), B is (out, sum of ranks), g repeats alpha_k * scaling_k over the ranks of expert k.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mocae.errors import ConfigError, ModelMismatchError

__all__ = ["BankLinear", "Gates", "Layout", "Stack"]

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """How one linear's stacked ranks belong to experts; linears with equal layouts share their g.

    Attributes:
        experts: index of the expert of each segment of ranks.
        ranks: number of ranks in each segment.
        scalings: scaling of each segment.
        device: where the linear is.
        dtype: format the linear computes in.
    """

    experts: tuple[int, ...]
    ranks: tuple[int, ...]
    scalings: tuple[float, ...]
    device: torch.device
    dtype: torch.dtype

    def columns(self) -> tuple[Tensor, Float[Tensor, " R"]]:
        """Return for each stacked rank the index of its expert and its scaling."""
        repeats = torch.tensor(self.ranks)
        experts = torch.tensor(self.experts).repeat_interleave(repeats)
        scalings = torch.tensor(self.scalings, dtype=torch.float32).repeat_interleave(repeats)
        return experts.to(self.device), scalings.to(self.device)


class Gates:
    """The weights in force, shared by all linears of a bank: g of every layout, made once per `set`.

    Attributes:
        n_experts: K.
        alpha: weights as they were set, None = base model.
        g: one tensor a layout, (R,), (B, 1, R) or (B, T, R); None = base model.
    """

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts
        self.alpha: Tensor | None = None
        self.g: list[Tensor] | None = None
        self._layouts: list[Layout] = []
        self._columns: list[tuple[Tensor, Tensor]] = []

    def slot(self, layout: Layout) -> int:
        """Return the index of a layout's g, a new one for a new layout."""
        if layout not in self._layouts:
            self._layouts.append(layout)
            self._columns.append(layout.columns())
        return self._layouts.index(layout)

    def set(self, alpha: Tensor | None) -> None:
        """Put checked weights in force; weights that are all 0 run the base model, bit for bit.

        Zeros that ask for a gradient do not: the path to them must exist.
        """
        self.alpha = alpha
        if alpha is None or not (alpha.requires_grad or bool(alpha.any())):
            self.g = None
        else:
            self.g = [self.expand(alpha, slot).to(layout.dtype) for slot, layout in enumerate(self._layouts)]

    def expand(self, alpha: Float[Tensor, "*rows K"], slot: int) -> Float[Tensor, "..."]:
        """Return alpha times scaling for each stacked rank of a layout, in fp32; one row a prompt becomes (B, 1, R)."""
        experts, scalings = self._columns[slot]
        g = alpha.to(scalings.device, torch.float32)[..., experts] * scalings
        return g.unsqueeze(1) if g.dim() == 2 else g

    def refuse_misfit(self, x: Tensor) -> None:
        """Raise unless the weights in force have the rows (and tokens) of this input.

        Raises:
            ConfigError: naming both sizes.
        """
        alpha = self.alpha
        if alpha is None or alpha.dim() == 1:
            return
        if x.dim() != 3 or x.shape[0] != alpha.shape[0]:
            raise ConfigError(
                f"weights have {alpha.shape[0]} rows, the model's input is {tuple(x.shape)} (batch, tokens, features); "
                "set one row a prompt, or a single vector of weights for all rows"
            )
        if alpha.dim() == 3 and x.shape[1] != alpha.shape[1]:
            raise ConfigError(
                f"weights are given for {alpha.shape[1]} tokens, the model's input has {x.shape[1]}; per-token "
                "weights fit one forward pass: set them again before the next, or use one row a prompt"
            )


class Stack:
    """Linears that read the same input: their W and A in one matrix, so that one product serves them all.

    The matrix is stored once. `weight` and `bias` of the linears become views of it and their Parameters stay the
    same objects, so a state dict sees nothing of it. `release` gives each linear a tensor of its own again.

    Args:
        linears: plain `nn.Linear`s with equal input size, dtype and device.
        factors: the stacked A of each, (R, in).
    """

    def __init__(self, linears: Sequence[nn.Linear], factors: Sequence[Float[Tensor, "_ in_features"]]) -> None:
        self._linears = list(linears)
        self._sizes = [size for m, a in zip(linears, factors, strict=True) for size in (m.out_features, a.shape[0])]
        with torch.no_grad():
            blocks = [t for m, a in zip(linears, factors, strict=True) for t in (m.weight, a)]
            self._matrix = torch.cat([block.detach() for block in blocks])
            self._bias = self._stacked_bias()
        views = self._matrix.split_with_sizes(self._sizes)
        self.factors = views[1::2]
        for linear, weight in zip(linears, views[::2], strict=True):
            linear.weight.data = weight
        if self._bias is not None:
            for linear, bias in zip(linears, self._bias.split_with_sizes(self._sizes)[::2], strict=True):
                if linear.bias is not None:
                    linear.bias.data = bias
        self._places = [linear.weight.data_ptr() for linear in linears]
        self._input: Tensor | None = None
        self._version = 0
        self._parts: list[tuple[Tensor, Tensor] | None] = [None] * len(linears)

    @staticmethod
    def accepts(linear: nn.Linear) -> bool:
        """Return whether a linear can join a stack: not quantised, not wrapped, rows on a 64-byte boundary.

        A row slice then starts where a tensor of its own would, and the base product is bit-equal to the original.
        """
        weight = linear.weight
        plain = type(linear) is nn.Linear and type(weight) is nn.Parameter and "forward" not in vars(linear)
        return (
            plain and weight.is_floating_point() and linear.in_features * weight.element_size() % _ALIGNMENT_BYTES == 0
        )

    def take(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return (W x + bias, A x) of one linear, both views of the shared product.

        The product is made when the first linear asks and dropped when the last has taken its part. A part is handed
        out once: asked again, or for another or a changed input, the product is made anew. No gradient.
        """
        version = 0 if x.is_inference() else x._version
        part = self._parts[index] if x is self._input and version == self._version else None
        if part is None:
            self._refuse_moved()
            cut = F.linear(x, self._matrix, self._bias).split_with_sizes(self._sizes, -1)
            parts = list(zip(cut[::2], cut[1::2], strict=True))
            self._input, self._version, self._parts = x, version, [*parts]
            part = parts[index]
        self._parts[index] = None
        if not any(self._parts):
            self.forget()
        return part

    def forget(self) -> None:
        """Drop a product that not every linear has taken from."""
        self._input, self._parts = None, [None] * len(self._linears)

    def release(self) -> None:
        """Give each linear tensors of its own again, with the values they have now."""
        self.forget()
        for linear in self._linears:
            linear.weight.data = linear.weight.data.clone()
            if linear.bias is not None:
                linear.bias.data = linear.bias.data.clone()

    def _stacked_bias(self) -> Tensor | None:
        if all(linear.bias is None for linear in self._linears):
            return None
        bias = self._matrix.new_zeros(self._matrix.shape[0])
        for linear, part in zip(self._linears, bias.split_with_sizes(self._sizes)[::2], strict=True):
            if linear.bias is not None:
                part.copy_(linear.bias)
        return bias

    def _refuse_moved(self) -> None:
        for linear, place in zip(self._linears, self._places, strict=True):
            if linear.weight.data_ptr() != place:
                raise ModelMismatchError(
                    "the base model's weights were moved or replaced while a bank is attached "
                    "(model.to, model.half, ...); detach the bank, change the model, attach again"
                )


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
        self.A, self.B = factors
        self.slot = gates.slot(layout)
        self.stack: Stack | None = None
        self.index = 0
        self._gates = gates

    def join(self, stack: Stack, index: int) -> None:
        """Read W x and A x from a shared product from now on; A becomes a view of the stack's matrix."""
        self.stack, self.index, self.A = stack, index, stack.factors[index]

    def __call__(self, input: Tensor) -> Tensor:  # torch's own name: callers may use the keyword
        """Return the linear's output with the weights in force; a result without experts is the base model's own.

        Raises:
            ConfigError: the weights have other rows or tokens than the input.
            ModelMismatchError: the model was moved or replaced since the bank was attached.
        """
        gates = self._gates
        if gates.g is None:
            return self.original(input)
        gates.refuse_misfit(input)
        g = gates.g[self.slot]
        if self.stack is None or torch.is_grad_enabled():
            return self.original(input) + F.linear(F.linear(input, self.A) * g, self.B)
        base, low_rank = self.stack.take(input, self.index)
        # addmm adds while it multiplies and its result is contiguous, so no view of the shared product leaves.
        mixed = torch.addmm(base.flatten(0, -2), (low_rank * g).flatten(0, -2), self.B.t())
        return mixed.view(base.shape)

    def merged(self, alpha: Float[Tensor, " K"]) -> Float[Tensor, "out_features in_features"]:
        """Return the linear's weight with constant expert weights merged in: summed in fp32, then cast."""
        g = self._gates.expand(alpha, self.slot)
        delta = self.B.float() @ (g[:, None] * self.A.float())
        return (self.linear.weight.detach().float() + delta).to(self.linear.weight.dtype)
