"""Merging: task vectors with exact algebra, merge methods over them, and putting the result into a model."""

from mocae.merging.apply import applied
from mocae.merging.arithmetic import average, task_arithmetic
from mocae.merging.base import (
    MERGE_METHODS,
    ComputedDelta,
    Delta,
    MergeMethod,
    expert_weights,
    refuse_bad_weights,
    register_merge_method,
    shapes_of,
)
from mocae.merging.importance import importance
from mocae.merging.task_vector import TaskVector, TruncatedVector, combination

__all__ = [
    "MERGE_METHODS",
    "ComputedDelta",
    "Delta",
    "MergeMethod",
    "TaskVector",
    "TruncatedVector",
    "applied",
    "average",
    "combination",
    "expert_weights",
    "importance",
    "refuse_bad_weights",
    "register_merge_method",
    "shapes_of",
    "task_arithmetic",
]
