"""Several experts as one: the exact sum of low-rank changes, and its best approximation of a smaller rank."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.bank.adapters import LoraPair, LoraWeights, common_rank
from mocae.errors import ConfigError, ModelMismatchError

__all__ = ["Truncated", "combine", "padded", "truncate"]


class Truncated(NamedTuple):
    """An expert of smaller rank, and how far it is from the original.

    Attributes:
        weights: the expert, every pair of rank at most r.
        relative_error: Frobenius norm of what was lost over that of the whole change, all linears together, in [0, 1].
    """

    weights: LoraWeights
    relative_error: float


def combine(experts: Mapping[str, LoraWeights], alpha: Float[Tensor, " K"], *, name: str = "combined") -> LoraWeights:
    """Return one expert equal to `sum_k alpha_k * expert_k`: its ranks are the sums of theirs.

    Exact: the factors are concatenated (and held in fp32). Averaging `lora_A` and `lora_B` apart is not the same
    thing, since mean(B) mean(A) has cross terms. Weights may be negative; an expert of weight 0 is left out.

    Args:
        experts: name -> expert; they may differ in rank and in the linears they adapt.
        alpha: one weight an expert, in the same order.
        name: name of the result.

    Raises:
        ConfigError: the number of weights is wrong, one is not finite, or all are 0.
        ModelMismatchError: two experts disagree on the shape of a linear.
    """
    if alpha.shape != (len(experts),) or not torch.isfinite(alpha).all():
        raise ConfigError(
            f"weights {alpha.tolist()} do not fit experts {', '.join(experts)}; give {len(experts)} finite numbers"
        )
    used = [(expert, weight) for expert, weight in zip(experts.values(), alpha.tolist(), strict=True) if weight]
    if not used:
        raise ConfigError(
            f"all weights of {', '.join(experts) or 'no experts'} are 0, which is the base model; give another"
        )
    parts: dict[str, list[tuple[LoraPair, float]]] = {}
    for expert, weight in used:
        for module, pair in expert.layers.items():
            parts.setdefault(module, []).append((pair, weight))
    layers = {module: _concatenated(module, pairs) for module, pairs in parts.items()}
    bases = {expert.base_model for expert, _ in used}
    return _as_expert(name, layers, bases.pop() if len(bases) == 1 else None)


def truncate(weights: LoraWeights, r: int) -> Truncated:
    """Return the closest expert of rank r in Frobenius norm, and the relative error.

    The singular values of B A come from QR of the factors, so no (out, in) matrix is ever formed; fp32.

    Args:
        weights: the expert; a pair of rank r or less is kept as it is.
        r: the new rank, at least 1.

    Raises:
        ConfigError: r is less than 1.
    """
    if r < 1:
        raise ConfigError(f"rank {r} of expert {weights.name!r} is not possible; give r >= 1")
    layers: dict[str, LoraPair] = {}
    lost = total = 0.0
    for module, pair in weights.layers.items():
        layers[module], values = _closest(pair, r)
        squares = values.double().square()
        total += float(squares.sum())
        lost += float(squares[layers[module].r :].sum())
    error = math.sqrt(lost / total) if total else 0.0
    return Truncated(_as_expert(weights.name, layers, weights.base_model), error)


def padded(weights: LoraWeights, *, r: int, start: int = 0) -> LoraWeights:
    """Return the same expert with every pair of rank r and scaling 1: its ranks begin at `start`, the others are zero.

    For tools that read one rank and one lora_alpha an adapter. Experts padded into ranges of their own have no cross
    terms, so even a sum of factors is exact for them: (sum w_k B_k)(sum w_k A_k) = sum w_k^2 B_k A_k.

    Raises:
        ConfigError: a pair does not fit into the ranks from `start` to r.
    """
    largest = weights.largest_rank
    if start < 0 or start + largest > r:
        raise ConfigError(f"expert {weights.name!r} has pairs of rank {largest}, which do not fit into {start} to {r}")
    layers = {}
    for module, pair in weights.layers.items():
        a = torch.zeros(r, pair.A.shape[1])
        b = torch.zeros(pair.B.shape[0], r)
        a[start : start + pair.r] = pair.A.float()
        b[:, start : start + pair.r] = pair.B.float() * pair.scaling
        layers[module] = LoraPair(a, b, scaling=1.0)
    return _as_expert(weights.name, layers, weights.base_model)


def _concatenated(module: str, pairs: list[tuple[LoraPair, float]]) -> LoraPair:
    shapes = {(p.B.shape[0], p.A.shape[1]) for p, _ in pairs}
    if len(shapes) != 1:
        raise ModelMismatchError(
            f"experts disagree on the (out, in) shape of {module!r}: {sorted(map(tuple, shapes))}; "
            "they were made for different base models"
        )
    a = torch.cat([p.A.float() for p, _ in pairs], dim=0)
    b = torch.cat([p.B.float() * (weight * p.scaling) for p, weight in pairs], dim=1)
    return LoraPair(a, b, scaling=1.0)


def _closest(pair: LoraPair, r: int) -> tuple[LoraPair, Float[Tensor, " R"]]:
    """Return the truncated pair and all singular values of the change, largest first."""
    q_out, upper_out = torch.linalg.qr(pair.B.float())  # (out, R), (R, R)
    q_in, upper_in = torch.linalg.qr(pair.A.float().T)  # (in, R), (R, R)
    u, values, vh = torch.linalg.svd(pair.scaling * (upper_out @ upper_in.T), full_matrices=False)
    if pair.r <= r:
        return pair, values
    root = values[:r].sqrt()
    return LoraPair((vh[:r] * root[:, None]) @ q_in.T, q_out @ (u[:, :r] * root), scaling=1.0), values


def _as_expert(name: str, layers: Mapping[str, LoraPair], base_model: str | None) -> LoraWeights:
    r = common_rank(layers)
    return LoraWeights(name=name, r=r, lora_alpha=r, use_rslora=False, base_model=base_model, layers=layers)
