"""What each system is, in a line."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["describe_system"]

_SYSTEMS: Mapping[str, str] = {
    "base": "the base model as it is, no expert",
    "joint": "one adapter tuned on the data of all axes at once: the plain rival of every mixture",
    "sequential": "one adapter tuned on the axes one after the other",
    "uniform": "all experts with the same weight, whatever the prompt",
    "static": "fixed weights given by hand",
    "sum": "task arithmetic: the experts' changes added up",
    "linear": "a router trained on which data set a prompt came from",
    "trinityx": "TrinityX: router with fixed importance weights",
    "alignx": "AlignX: router with fractal and natural calibrators",
    "oracle": "picks the best expert by the verdict itself: an upper bound, not a system one can run",
}


def describe_system(name: str) -> str | None:
    """Return one line on what the system is, None for a name this package did not give.

    >>> describe_system("expert:honesty")
    'the expert of the axis honesty alone'
    """
    if name.startswith("expert:"):
        return f"the expert of the axis {name.removeprefix('expert:')} alone"
    return _SYSTEMS.get(name)
