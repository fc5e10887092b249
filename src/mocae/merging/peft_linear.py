"""PEFT's `linear` merge, which adds the factors and not the changes; here so that its error can be measured."""

import math
from collections.abc import Mapping

import torch

from mocae.bank import LoraPair
from mocae.errors import ConfigError
from mocae.merging.base import expert_weights, register_merge_method, shapes_of
from mocae.merging.task_vector import TaskVector

__all__ = ["linear_peft"]


@register_merge_method("linear-peft", reference="peft: LoraModel.add_weighted_adapter, combination_type 'linear'")
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
