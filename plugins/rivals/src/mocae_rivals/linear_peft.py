"""PEFT's `linear` merge, which adds the factors and not the changes; here so that its error can be measured."""

import math
from collections.abc import Mapping

import torch

from mocae.bank import LoraPair
from mocae.errors import ConfigError
from mocae.merging import Delta, TaskVector, expert_weights, register_merge_method, shapes_of, task_arithmetic

__all__ = ["linear_peft", "linear_peft_error", "relative_error"]


def _note(vectors: Mapping[str, TaskVector], *, weights: Mapping[str, float] | None = None) -> str:
    error = linear_peft_error(vectors, weights=weights)
    return (
        "PEFT's linear merge adds factors, not weights; its relative error against the exact sum is "
        f"{error:.2f} (Frobenius norm over all linears)"
    )


@register_merge_method(
    "linear-peft", reference="peft: LoraModel.add_weighted_adapter, combination_type 'linear'", note=_note
)
def linear_peft(vectors: Mapping[str, TaskVector], *, weights: Mapping[str, float] | None = None) -> TaskVector:
    """Return (sum of sqrt(w s) B)(sum of sqrt(w s) A), which is not the sum of w s B A: it adds all cross terms.

    Not a method to use. `linear_peft_error` says how far off it is; 'task-arithmetic' is the exact one.

    Args:
        vectors: expert -> task vector of a single adapter, equal ranks at each linear.
        weights: factor an expert, any sign; None = 1 each, an expert left out = 0.

    Raises:
        ConfigError: weights that do not fit, ranks that differ, or a vector that is a sum of adapters already.
    """
    factors = expert_weights(vectors, weights)
    layers: dict[str, tuple[LoraPair, ...]] = {}
    for module in shapes_of(vectors):
        terms = {name: vector.layers[module] for name, vector in vectors.items() if module in vector.layers}
        ranks = {name: [pair.r for pair in pairs] for name, pairs in terms.items()}
        if any(len(each) != 1 for each in ranks.values()) or len({each[0] for each in ranks.values()}) != 1:
            raise ConfigError(
                f"'linear-peft' adds factors, so each expert must be one adapter of the same rank; at {module!r} the "
                f"ranks are {ranks}. Use 'task-arithmetic', which is exact for any ranks"
            )
        sum_a, sum_b = [], []
        for name, (pair,) in terms.items():
            strength = factors[name] * pair.scaling
            root = math.sqrt(abs(strength))
            sum_a.append(pair.A.detach().float() * math.copysign(root, strength))
            sum_b.append(pair.B.detach().float() * root)
        layers[module] = (LoraPair(torch.stack(sum_a).sum(0), torch.stack(sum_b).sum(0), scaling=1.0),)
    bases = {vector.base_model for vector in vectors.values()}
    return TaskVector(layers, bases.pop() if len(bases) == 1 else None)


def relative_error(approximation: Delta, exact: Delta) -> float:
    """Return ||approximation - exact|| / ||exact|| over all linears of both, 0 = equal, 1 = as bad as no merge.

    Two task vectors are compared by their factors; otherwise one linear's dense changes are in memory at a time.

    Raises:
        ConfigError: `exact` is 0.
        ModelMismatchError: they disagree on the shape of a linear.
    """
    if isinstance(approximation, TaskVector) and isinstance(exact, TaskVector):
        lost, total = (approximation - exact).norm(), exact.norm()
    else:
        lost, total = _dense_norms(approximation, exact)
    if not total:
        raise ConfigError("the exact merge is 0, which is the base model, so a relative error is not defined")
    return lost / total


def linear_peft_error(vectors: Mapping[str, TaskVector], *, weights: Mapping[str, float] | None = None) -> float:
    """Return the relative error of PEFT's `linear` merge of these experts against the exact sum.

    For K independent experts of equal size and weight the K (K - 1) cross terms that it adds are each as large as an
    expert, so the error is about sqrt(K - 1): 1.0 for two experts, 1.4 for three.

    Raises:
        ConfigError: experts of different ranks, weights that do not fit, or an exact sum of 0.
        ModelMismatchError: experts of different base models.
    """
    return relative_error(linear_peft(vectors, weights=weights), task_arithmetic(vectors, weights=weights))


def _dense_norms(approximation: Delta, exact: Delta) -> tuple[float, float]:
    lost, total = [], []
    for module in dict.fromkeys([*approximation.modules, *exact.modules]):
        parts = [d.dense(module) if module in d.modules else torch.zeros(()) for d in (approximation, exact)]
        lost.append(float((parts[0] - parts[1]).double().square().sum()))
        total.append(float(parts[1].double().square().sum()))
    return math.sqrt(math.fsum(lost)), math.sqrt(math.fsum(total))
