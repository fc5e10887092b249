"""Merging: task vectors with exact algebra, merge methods over them, and putting the result into a model."""

from mocae.merging.apply import applied
from mocae.merging.arithmetic import average, task_arithmetic
from mocae.merging.base import MERGE_METHODS, ComputedDelta, Delta, MergeMethod, register_merge_method
from mocae.merging.consensus import dare, dare_ties, sparse_consensus, ties
from mocae.merging.error import linear_peft_error, relative_error
from mocae.merging.extrapolation import lox
from mocae.merging.importance import importance
from mocae.merging.layerwise import hma, layer_blocks
from mocae.merging.layerwise_fit import BlockWeights, block_weights_in_force, fit_block_weights
from mocae.merging.peft_linear import linear_peft
from mocae.merging.spherical import slerp
from mocae.merging.task_vector import TaskVector, TruncatedVector, combination

__all__ = [
    "MERGE_METHODS",
    "BlockWeights",
    "ComputedDelta",
    "Delta",
    "MergeMethod",
    "TaskVector",
    "TruncatedVector",
    "applied",
    "average",
    "block_weights_in_force",
    "combination",
    "dare",
    "dare_ties",
    "fit_block_weights",
    "hma",
    "importance",
    "layer_blocks",
    "linear_peft",
    "linear_peft_error",
    "lox",
    "register_merge_method",
    "relative_error",
    "slerp",
    "sparse_consensus",
    "task_arithmetic",
    "ties",
]
