"""The weights in force: what every linear of a bank multiplies its ranks by, made once for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.errors import ConfigError

__all__ = ["Gates", "Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How stacked ranks belong to experts; linears, and stacks of linears, with equal layouts share their g.

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

    @staticmethod
    def joined(layouts: "Sequence[Layout]") -> "Layout":
        """Return the layout of linears on one device and in one dtype, one after the other."""
        return Layout(
            experts=sum((layout.experts for layout in layouts), ()),
            ranks=sum((layout.ranks for layout in layouts), ()),
            scalings=sum((layout.scalings for layout in layouts), ()),
            device=layouts[0].device,
            dtype=layouts[0].dtype,
        )

    def columns(self) -> tuple[Tensor, Float[Tensor, " R"]]:
        """Return for each stacked rank the index of its expert and its scaling."""
        repeats = torch.tensor(self.ranks)
        experts = torch.tensor(self.experts).repeat_interleave(repeats)
        scalings = torch.tensor(self.scalings, dtype=torch.float32).repeat_interleave(repeats)
        return experts.to(self.device), scalings.to(self.device)

    def span(self, used: frozenset[int]) -> tuple[int, int]:
        """Return the first and one past the last rank of the experts in use, (0, 0) when none is."""
        first = last = start = 0
        for expert, r in zip(self.experts, self.ranks, strict=True):
            if expert in used:
                first, last = first if last else start, start + r
            start += r
        return first, last


class Gates:
    """The weights in force, shared by all linears of a bank: g of a layout is made when it is first asked for.

    Attributes:
        n_experts: K.
        alpha: weights as they were set, None = base model.
        on: whether any expert is in use; False = base model.
    """

    def __init__(self, n_experts: int) -> None:
        self.n_experts = n_experts
        self.alpha: Tensor | None = None
        self.on = False
        self._used: frozenset[int] = frozenset()
        self._layouts: list[Layout] = []
        self._columns: list[tuple[Tensor, Tensor]] = []
        self._g: list[Tensor | None] = []
        self._spans: list[tuple[int, int] | None] = []

    def slot(self, layout: Layout) -> int:
        """Return the index of a layout, a new one for a new layout."""
        if layout not in self._layouts:
            self._layouts.append(layout)
            self._columns.append(layout.columns())
            self._g.append(None)
            self._spans.append(None)
        return self._layouts.index(layout)

    def set(self, alpha: Tensor | None) -> None:
        """Put checked weights in force; weights that are all 0 run the base model, bit for bit.

        Zeros that ask for a gradient do not: the path to them must exist.
        """
        self.alpha = alpha
        self._used = frozenset() if alpha is None else _in_use(alpha)
        self.on = bool(self._used)
        self._g = [None] * len(self._layouts)
        self._spans = [None] * len(self._layouts)

    def g(self, slot: int) -> Float[Tensor, "..."]:
        """Return g of a layout in its dtype, (R,), (B, 1, R) or (B, T, R); only while weights are in force."""
        g = self._g[slot]
        if g is None:
            assert self.alpha is not None
            g = self._g[slot] = self.expand(self.alpha, slot).to(self._layouts[slot].dtype)
        return g

    def span(self, slot: int) -> tuple[int, int]:
        """Return the range of ranks that matter: outside it every row's weight is 0. (0, 0): none does."""
        span = self._spans[slot]
        if span is None:
            span = self._spans[slot] = self._layouts[slot].span(self._used)
        return span

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


def _in_use(alpha: Tensor) -> frozenset[int]:
    """Return the experts that have a weight other than 0 in some row, all of them when a gradient is asked for."""
    n_experts = alpha.shape[-1]
    if alpha.requires_grad:
        return frozenset(range(n_experts))
    return frozenset(k for k, used in enumerate(alpha.reshape(-1, n_experts).any(0).tolist()) if used)
