"""Task vectors: what an expert adds to the base model's weights, with exact algebra on its low-rank factors."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.bank import LoraPair, LoraWeights, truncate
from mocae.bank.adapters import common_rank
from mocae.errors import ConfigError, ModelMismatchError, unknown_name
from mocae.models.layers import layer_index

__all__ = ["TaskVector", "TruncatedVector", "combination"]


class TruncatedVector(NamedTuple):
    """A task vector of smaller rank, and how far it is from the original.

    Attributes:
        vector: the task vector, every linear of rank at most r.
        relative_error: Frobenius norm of what was lost over that of the original, in [0, 1].
    """

    vector: "TaskVector"
    relative_error: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TaskVector:
    """Fine-tuned minus base weights of the adapted linears, kept as a sum of low-rank terms; 0 everywhere else.

    `+`, `-`, `*` by a number and negation are exact: terms are listed, never multiplied out, and terms of the same
    tensors are joined, so `a - a` is 0 of rank 0 and `a + a` has the rank of `a`. Tensors are shared with the expert
    they came from and must not be changed in place. Products and norms are computed from the factors in fp64, since in
    fp32 the norm of a difference of nearly equal vectors would be noise; only `dense` forms an (out, in) matrix.

    Attributes:
        layers: name of the linear inside the base model -> its terms; a linear that became 0 keeps a term of rank 0.
        base_model: name of the base model as the adapters give it, None when they do not say or disagree.

    Reference: Ilharco et al., Editing Models with Task Arithmetic (arXiv 2212.04089), section 2.
    """

    layers: Mapping[str, tuple[LoraPair, ...]]
    base_model: str | None = None

    @classmethod
    def from_lora(cls, weights: LoraWeights) -> "TaskVector":
        """Return the task vector of an expert; nothing is copied."""
        return cls({module: (pair,) for module, pair in weights.layers.items()}, weights.base_model)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the linears it changes, in the order of the model."""
        return tuple(self.layers)

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out features, in features) of a linear.

        Raises:
            ConfigError: it does not change that linear.
        """
        pair = self._terms(module)[0]
        return int(pair.B.shape[0]), int(pair.A.shape[1])

    def rank(self, module: str) -> int:
        """Return the sum of its terms' ranks at a linear: what `to_lora` needs there, an upper bound of the true rank.

        Raises:
            ConfigError: it does not change that linear.
        """
        return sum(pair.r for pair in self._terms(module))

    def dense(self, module: str) -> Float[Tensor, "out_features in_features"]:
        """Return the change of one linear's weight as a new fp32 matrix.

        Raises:
            ConfigError: it does not change that linear.
        """
        first, *others = self._terms(module)
        change = first.delta().detach()
        for pair in others:
            change.addmm_(pair.B.detach().float(), pair.A.detach().float(), alpha=pair.scaling)
        return change

    def __add__(self, other: "TaskVector") -> "TaskVector":
        return combination([(self, 1.0), (other, 1.0)])

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        return combination([(self, 1.0), (other, -1.0)])

    def __neg__(self) -> "TaskVector":
        return combination([(self, -1.0)])

    def __mul__(self, factor: float | int) -> "TaskVector":
        return combination([(self, float(factor))])

    __rmul__ = __mul__

    def scaled(self, factor: Callable[[str], float]) -> "TaskVector":
        """Return the vector with each linear times `factor(name of the linear)`.

        Raises:
            ConfigError: a factor is not finite.
        """
        parts = [(TaskVector({m: terms}, self.base_model), factor(m)) for m, terms in self.layers.items()]
        return combination(parts) if parts else self

    def inner_by_module(self, other: "TaskVector") -> dict[str, float]:
        """Return the inner product at each linear that both change; elsewhere it is 0.

        Raises:
            ModelMismatchError: they disagree on the shape of a linear.
        """
        shared = [module for module in self.layers if module in other.layers]
        return {m: _inner(m, self.layers[m], other.layers[m]) for m in shared}

    def inner(self, other: "TaskVector") -> float:
        """Return the inner product of the dense differences, from R x R matrices.

        Raises:
            ModelMismatchError: they disagree on the shape of a linear.
        """
        return math.fsum(self.inner_by_module(other).values())

    def norm(self) -> float:
        """Return the Frobenius norm over all linears."""
        return math.sqrt(max(self.inner(self), 0.0))  # max: cancelling terms can leave -1e-17

    def cosine(self, other: "TaskVector") -> float:
        """Return the cosine of the angle between two vectors, in [-1, 1].

        Raises:
            ConfigError: one of them is 0, so there is no angle.
            ModelMismatchError: they disagree on the shape of a linear.
        """
        return self._cosine(other, self.inner(other), self.norm(), other.norm())

    def cosine_by_layer(self, other: "TaskVector") -> dict[int, float]:
        """Return the cosine in each decoder layer, by its number.

        A layer where one of them is 0 has no angle and is left out, as are linears outside all layers (`lm_head`).

        Raises:
            ModelMismatchError: they disagree on the shape of a linear.
        """
        products = _sum_by_layer(self.inner_by_module(other))
        own, others = (_sum_by_layer(vector.inner_by_module(vector)) for vector in (self, other))
        layers = sorted(layer for layer in own if own[layer] > 0 and others.get(layer, 0.0) > 0)
        return {
            layer: self._cosine(other, products.get(layer, 0.0), math.sqrt(own[layer]), math.sqrt(others[layer]))
            for layer in layers
        }

    def truncate(self, r: int) -> TruncatedVector:
        """Return the closest vector with rank at most r at each linear (SVD from QR of the factors, fp32).

        Raises:
            ConfigError: r is less than 1.
        """
        if not any(self.rank(module) for module in self.layers):
            if r < 1:
                raise ConfigError(f"rank {r} of a task vector is not possible; give r >= 1")
            return TruncatedVector(self, 0.0)
        closest = truncate(self.to_lora("task vector"), r)
        kept = {m: (closest.weights.layers[m],) if m in closest.weights.layers else t for m, t in self.layers.items()}
        return TruncatedVector(TaskVector(kept, self.base_model), closest.relative_error)

    def to_lora(self, name: str) -> LoraWeights:
        """Return an expert equal to this vector; terms of one linear are concatenated to the sum of their ranks.

        Linears of rank 0 are left out. A linear with one term keeps its factors and dtype, others are fp32.

        Raises:
            ConfigError: the vector is 0, which is the base model.
        """
        layers = {module: _joined(terms) for module, terms in self.layers.items() if self.rank(module)}
        if not layers:
            raise ConfigError(f"task vector {name!r} is 0, which is the base model; there is no expert to make of it")
        r = common_rank(layers)
        scaling = Counter(pair.scaling for pair in layers.values()).most_common(1)[0][0]
        lora_alpha = round(scaling * r) if round(scaling * r) / r == scaling else scaling * r
        return LoraWeights(
            name=name, r=r, lora_alpha=lora_alpha, use_rslora=False, base_model=self.base_model, layers=layers
        )

    def __repr__(self) -> str:
        ranks = [self.rank(module) for module in self.layers]
        return f"TaskVector({len(ranks)} linears, ranks {min(ranks, default=0)} to {max(ranks, default=0)})"

    def _terms(self, module: str) -> tuple[LoraPair, ...]:
        if module not in self.layers:
            raise ConfigError(f"this task vector is 0 there: {unknown_name('linear', module, self.layers)}")
        return self.layers[module]

    def _cosine(self, other: "TaskVector", product: float, own: float, others: float) -> float:
        if not (own and others):
            zero = self if not own else other
            raise ConfigError(f"{zero!r} has norm 0, so its cosine with another vector is not defined")
        return min(max(product / (own * others), -1.0), 1.0)


def combination(parts: Iterable[tuple[TaskVector, float]]) -> TaskVector:
    """Return the sum of factor * vector, exact, over any ranks and linears.

    Raises:
        ConfigError: no parts, or a factor is not finite.
        ModelMismatchError: two vectors disagree on the shape of a linear.
    """
    parts = list(parts)
    if not parts:
        raise ConfigError("a combination of no task vectors has no base model to stand on; give at least one")
    terms: dict[str, list[LoraPair]] = defaultdict(list)
    for vector, factor in parts:
        if not math.isfinite(factor):
            raise ConfigError(f"a task vector cannot be multiplied by {factor}; give a finite number")
        for module, pairs in vector.layers.items():
            terms[module] += [LoraPair(pair.A, pair.B, pair.scaling * factor) for pair in pairs]
    bases = {vector.base_model for vector, _ in parts}
    layers = {module: _simplified(module, pairs) for module, pairs in terms.items()}
    return TaskVector(layers, bases.pop() if len(bases) == 1 else None)


def _simplified(module: str, pairs: list[LoraPair]) -> tuple[LoraPair, ...]:
    """Join terms of the same tensors and drop those that are 0; what became 0 keeps its shape as a term of rank 0."""
    for pair in pairs:
        _refuse_other_shape(module, pairs[0], pair)
    joined: dict[tuple[int, int], LoraPair] = {}
    for pair in pairs:
        key = (id(pair.A), id(pair.B))
        before = joined[key].scaling if key in joined else 0.0
        joined[key] = LoraPair(pair.A, pair.B, before + pair.scaling)
    kept = tuple(pair for pair in joined.values() if pair.scaling and pair.r)
    return kept or (LoraPair(pairs[0].A[:0], pairs[0].B[:, :0], scaling=1.0),)


def _joined(terms: tuple[LoraPair, ...]) -> LoraPair:
    if len(terms) == 1:
        return terms[0]
    a = torch.cat([pair.A.detach().float() for pair in terms], dim=0)
    b = torch.cat([pair.B.detach().float() * pair.scaling for pair in terms], dim=1)
    return LoraPair(a, b, scaling=1.0)


def _inner(module: str, terms: tuple[LoraPair, ...], others: tuple[LoraPair, ...]) -> float:
    """Return sum over terms of <B A, B' A'> = <B^T B', A A'^T>, times their scalings."""
    _refuse_other_shape(module, terms[0], others[0])
    products = []
    for one in terms:
        a, b = one.A.detach().double(), one.B.detach().double()
        for two in others:
            outputs, inputs = b.T @ two.B.detach().double(), a @ two.A.detach().double().T
            products.append(one.scaling * two.scaling * float((outputs * inputs).sum()))
    return math.fsum(products)


def _sum_by_layer(products: Mapping[str, float]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for module, product in products.items():
        layer = layer_index(module)
        if layer is not None:
            sums[layer] = sums.get(layer, 0.0) + product
    return sums


def _refuse_other_shape(module: str, one: LoraPair, two: LoraPair) -> None:
    shapes = [(int(pair.B.shape[0]), int(pair.A.shape[1])) for pair in (one, two)]
    if shapes[0] != shapes[1]:
        raise ModelMismatchError(
            f"task vectors disagree on the (out, in) shape of {module!r}: {shapes[0]} and {shapes[1]}; "
            "they were made for different base models"
        )
