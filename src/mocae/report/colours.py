"""The colours of a report: one an axis, safe for colour-blind readers, with a light and a dark form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["ACCENT", "AXIS_COLOURS", "GRID", "INK", "MUTED", "PAPER", "THEME", "axis_colour", "css_colours"]

INK, MUTED, GRID, PAPER, ACCENT = "#1b2129", "#5b6673", "#d9dee4", "#fefefe", "#35618f"

# Okabe and Ito's colours that are dark enough on white, in their order of mutual contrast for colour-blind readers.
AXIS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8a6fb0", "#7a7a7a")
_DARK_AXIS_COLOURS = ("#4aa8e0", "#f0894a", "#3fc79d", "#e2a0c6", "#dcb04a", "#86cdf5", "#b39ddb", "#a8a8a8")

# A figure is drawn once and shown in light and dark: these colours become variables of the page.
THEME: Mapping[str, str] = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
} | {colour: f"var(--axis-{i})" for i, colour in enumerate(AXIS_COLOURS)}


def axis_colour(axis: str, axes: Sequence[str]) -> str:
    """Return the colour of an axis: its place in the recipe decides, so it is the same in every figure.

    After eight axes the colours come round again; names stand beside them everywhere. An axis that the recipe does
    not name is grey.

    >>> axis_colour("honesty", ["helpfulness", "honesty"])
    '#d55e00'
    """
    return AXIS_COLOURS[axes.index(axis) % len(AXIS_COLOURS)] if axis in axes else MUTED


def css_colours(*, dark: bool) -> Mapping[str, str]:
    """Return the page variables of the axis colours; a dark page takes lighter ones."""
    return {f"--axis-{i}": colour for i, colour in enumerate(_DARK_AXIS_COLOURS if dark else AXIS_COLOURS)}
