"""Where to write names beside crowded points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Label", "place_labels"]

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Label:
    """A place for one name in pixels: left end and vertical middle of the text; `anchor` is where a line to it ends."""

    x: float
    y: float
    anchor: tuple[float, float]
    moved: bool


def place_labels(
    names: Sequence[str], points: Sequence[tuple[float, float]], *, inside: _Box, size: float
) -> list[Label]:
    """Return a place for each name: the nearest one that covers no point, no earlier name and no edge.

    Args:
        names: the texts, in the order in which they choose.
        points: their points in pixels.
        inside: left, bottom, right, top that no text may leave.
        size: font size in pixels.
    """
    taken: list[_Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    labels = []
    for name, point in zip(names, points, strict=True):
        width = 0.6 * size * len(name)  # wide enough for the usual sans-serif faces
        tries = [(_cost(box, step, taken, inside), box, step) for box, step in _places(point, width, size)]
        _, box, step = min(tries, key=lambda found: found[0])
        taken.append(box)
        labels.append(Label(box[0], (box[1] + box[3]) / 2, _nearest(box, point), moved=step > 0))
    return labels


def _places(point: tuple[float, float], width: float, size: float) -> Iterator[tuple[_Box, int]]:
    """Yield boxes round a point, right of it first, then in growing rings."""
    height = 1.15 * size
    for step in range(9):
        reach = 8 + 0.9 * size * step
        for angle in (0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = point[0] + reach * dx - width * (1 - dx) / 2
            y = point[1] + reach * dy
            yield (x, y - height / 2, x + width, y + height / 2), step


def _cost(box: _Box, step: int, taken: Sequence[_Box], inside: _Box) -> float:
    overlap = sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
    outside = max(0.0, inside[0] - box[0]) + max(0.0, inside[1] - box[1])
    outside += max(0.0, box[2] - inside[2]) + max(0.0, box[3] - inside[3])
    return 10 * overlap + 100 * outside + step


def _nearest(box: _Box, point: tuple[float, float]) -> tuple[float, float]:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])
