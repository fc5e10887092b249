"""What training one axis after the other forgot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mocae.evaluation.measure import Bootstrap, difference, mean_score
from mocae.metrics import forgetting_matrix
from mocae.types import Sample

__all__ = ["forgetting"]


def forgetting(
    axes: Sequence[str], base: Sequence[Sample], stages: Mapping[str, Sequence[Sample]], boot: Bootstrap
) -> dict[str, Any] | None:
    """Return the score on every axis after each stage of training one axis after the other.

    Args:
        axes: of the recipe, in order.
        base: the base model's answers.
        stages: axis -> answers after it was trained, in the order of training.
        boot: intervals.

    Returns:
        `order`, `axes`, `stages`, `matrix` (stages x axes), and for each axis in `forgetting` its best score before the
        last stage minus its score after it, paired by prompt, with its interval; None without stages, or where an
        axis has no scored prompt.
    """
    samples = {"base": base}
    samples |= {axis if i == 0 else f"+{axis}": rows for i, (axis, rows) in enumerate(stages.items())}
    scores = {
        name: {axis: value for axis in axes if (value := mean_score(rows, [axis], boot=Bootstrap(1)).value) is not None}
        for name, rows in samples.items()
    }
    if not stages or any(len(row) < len(axes) for row in scores.values()):
        return None
    matrix = forgetting_matrix(scores)
    last = matrix.stages[-1]
    lost = {}
    for column, axis in enumerate(matrix.axes):
        best = matrix.stages[int(matrix.rates[:-1, column].argmax())]
        lost[axis] = asdict(difference(samples[best], samples[last], [axis], boot=boot))
    return {
        "order": list(stages),
        "axes": list(matrix.axes),
        "stages": list(matrix.stages),
        "matrix": [[float(value) for value in row] for row in matrix.rates],
        "forgetting": lost,
        "mean_forgetting": matrix.mean_forgetting,
        "mean_at_end": float(matrix.rates[-1].mean()),
    }
