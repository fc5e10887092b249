"""Heterogeneous model averaging: another averaging ratio in each block of layers, exact and low rank."""

import bisect
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise

from mocae.errors import ConfigError
from mocae.merging import TaskVector, combination, refuse_bad_weights, register_merge_method
from mocae.models import layer_index

__all__ = ["block_of", "hma", "layer_blocks"]


@register_merge_method("hma", reference="arXiv:2309.06256")
def hma(
    vectors: Mapping[str, TaskVector], *, blocks: Sequence[Mapping[str, float]], boundaries: Sequence[int]
) -> TaskVector:
    """Return the sum of experts whose weights differ from block to block of layers.

    With experts "aligned" and "other" whose weights sum to 1 in each block it is the averaging of two fine-tuned
    models; with one expert it is that of the expert and the base model, whose weight is the rest up to 1.

    Args:
        vectors: expert -> task vector.
        blocks: for each block, from the lowest, the weight of each expert there; left out = 0. `fit_block_weights`
            finds them.
        boundaries: first layer of each block but the lowest, e.g. [11, 21] for three blocks; see `layer_blocks`.

    Raises:
        ConfigError: weights that do not fit, or blocks and boundaries that do not.

    Reference: Lin et al., Mitigating the Alignment Tax of RLHF (arXiv 2309.06256), Heterogeneous Model Averaging.
        Deviation: any number of experts; a linear outside all layers (`lm_head`) belongs to the highest block, where
        the authors' code gives it the mean ratio.
    """
    if not blocks or len(blocks) != len(boundaries) + 1:
        raise ConfigError(
            f"'hma': {len(blocks)} blocks of weights do not fit boundaries {list(boundaries)}, which make "
            f"{len(boundaries) + 1} blocks; give one set of weights a block"
        )
    _refuse_boundaries(boundaries)
    refuse_bad_weights(vectors, blocks)
    return combination(
        (vector.scaled(partial(_weight, name=name, blocks=blocks, boundaries=boundaries)), 1.0)
        for name, vector in vectors.items()
    )


def layer_blocks(n_layers: int, n_blocks: int) -> list[int]:
    """Return the boundaries that cut layers into blocks of nearly equal length, for `hma`.

    >>> layer_blocks(32, 3)
    [11, 21]

    Raises:
        ConfigError: fewer than 1 block, or more blocks than layers.
    """
    if not 1 <= n_blocks <= n_layers:
        raise ConfigError(f"{n_layers} layers cannot be cut into {n_blocks} blocks; give 1 to {n_layers}")
    return [round(n_layers * block / n_blocks) for block in range(1, n_blocks)]


def block_of(module: str, boundaries: Sequence[int]) -> int:
    """Return the number of the block that a linear belongs to.

    >>> block_of("model.layers.11.mlp.up_proj", [11, 21])
    1
    """
    layer = layer_index(module)
    return len(boundaries) if layer is None else bisect.bisect_right(boundaries, layer)


def _weight(module: str, *, name: str, blocks: Sequence[Mapping[str, float]], boundaries: Sequence[int]) -> float:
    return float(blocks[block_of(module, boundaries)].get(name, 0.0))


def _refuse_boundaries(boundaries: Sequence[int]) -> None:
    if any(first >= second for first, second in pairwise([0, *boundaries])):
        raise ConfigError(f"boundaries {list(boundaries)} must rise and start above 0: first layers of the blocks")
