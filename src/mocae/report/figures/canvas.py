"""What all figures share: a canvas and SVG that takes its colours and font from the page."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mocae.report.colours import GRID, INK, MUTED, THEME

__all__ = ["Panel", "Plate", "canvas", "percent_axis", "plain", "shorten", "to_panel", "to_svg"]

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mocae",  # ids are hashes: without a fixed salt two reports of one run differ
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 12,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One SVG. It is at most `width` CSS pixels wide on the page and shrinks with the window."""

    svg: Markup
    width: int


@dataclass(frozen=True, slots=True)
class Plate:
    """One figure: its panels, or the sentence that says why there are none."""

    panels: tuple[Panel, ...] = ()
    absent: str = ""


@contextmanager
def canvas(width: int, height: int) -> Iterator[Figure]:
    """Yield an empty figure of that size in CSS pixels, in the style of the report; save it inside the block."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the letters with its own fonts: that ours lack a letter of some name does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")


def to_panel(figure: Figure, *, key: str, description: str) -> Panel:
    """Return the figure as inline SVG with text as text, colours as page variables and nothing to fetch.

    Args:
        figure: drawn inside `canvas`.
        key: goes in front of every id, so that the figures of one page do not share ids.
        description: what a screen reader says in place of the figure.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    _drop(root, {"metadata", "style"})
    prefix = re.sub(r"[^A-Za-z0-9_-]", lambda found: f"x{ord(found[0]):x}", key)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): _restyle(_local(name), text, prefix) for name, text in element.items()}
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": _printable(description)}
    return Panel(Markup(ET.tostring(root, encoding="unicode")), width=round(float(box.split()[2])))


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG that stands alone, on white, text as text; the same numbers give the same bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
    return buffer.getvalue()


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(element: ET.Element, names: set[str]) -> None:
    """Remove all descendants with these local names: metadata holds addresses, style would act on the whole page."""
    for child in list(element):
        if _local(child.tag) in names:
            element.remove(child)
        else:
            _drop(child, names)


def _restyle(name: str, text: str, prefix: str) -> str:
    """Return the attribute's value with ids made unique, and theme colours and the font left to the page."""
    if name == "id":
        return f"{prefix}-{text}"
    if name == "href" and text.startswith("#"):
        return f"#{prefix}-{text.removeprefix('#')}"
    text = text.replace("url(#", f"url(#{prefix}-")
    if name == "style":
        text = re.sub(r"\s*font-family:[^;]*;?", "", text)
        text = re.sub(r"#[0-9a-f]{6}", lambda found: THEME.get(found[0], found[0]), text)
    return text


def shorten(name: str, limit: int = 22) -> str:
    """Return a name that fits beside a figure.

    >>> shorten("expert:harmlessness", 12)
    'expert:harm…'
    """
    name = _printable(name)
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _printable(text: str) -> str:
    """Return the text without control characters, which no XML can hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def percent_axis(ax: Axes, which: str, ticks: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> None:
    """Print one axis ("x" or "y") in percent."""
    side = {"x": ax.xaxis, "y": ax.yaxis}[which]
    side.set_ticks(list(ticks))
    side.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="\u00a0%"))
    side.set_tick_params(length=0)


def plain(ax: Axes) -> None:
    """Take away what a chart of rows does not need: ticks, and the lines at the left and below."""
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_axisbelow(True)
