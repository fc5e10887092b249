"""What the page shows beside text, as HTML: bars of weights, the reasons for a mix, the reliability of routers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mocae.report.colours import AXIS_COLOURS, THEME, axis_colour, css_colours
from mocae.ui.why import Plane, Why

__all__ = ["asked", "bars", "reasons", "reliability", "slider_class", "style"]

_WIDTH, _HEIGHT, _MARGIN = 320, 220, 14


@cache
def _macros() -> Any:
    """Return the macros of the templates, which escape what they are given."""
    environment = Environment(
        loader=PackageLoader("mocae.ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["minus"] = lambda number: number.replace("-", "\u2212")
    return environment.get_template("panels.html.j2").module


def slider_class(i: int) -> str:
    """Return the CSS class that gives a slider the colour of the i-th axis."""
    return f"axis-{i % len(AXIS_COLOURS)}"


def style() -> str:
    """Return the page's own CSS: the colours of the report, light and dark, and the panels."""

    def variables(colours: Mapping[str, str]) -> str:
        return " ".join(f"{name}: {value};" for name, value in colours.items())

    sliders = "\n".join(f".axis-{i} {{ --slider-color: var(--axis-{i}); }}" for i in range(len(AXIS_COLOURS)))
    own = files("mocae.ui").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = (variables(css_colours(dark=dark)) for dark in (False, True))
    return f":root {{ {light} }}\n.dark {{ {dark} }}\n{sliders}\n{own}"


def _colours(axes: Sequence[str]) -> dict[str, str]:
    """Return the CSS colour of each axis, the one the report gives it."""
    return {axis: THEME[axis_colour(axis, axes)] for axis in axes}


def asked(text: str) -> Markup:
    """Return what the user has written as it stands: no Markdown, no HTML, its lines kept.

    >>> asked("<b>*")
    Markup('<div class="asked">&lt;b&gt;*</div>')
    """
    return Markup(_macros().asked(text))


def bars(weights: Mapping[str, float]) -> Markup:
    """Return one bar an expert, as long as its weight; weights above 1 shrink all of them.

    >>> "0.75" in bars({"helpfulness": 0.75, "honesty": 0.25})
    True
    """
    return Markup(_macros().bars(weights, _colours(list(weights)), max(1.0, *map(abs, weights.values()))))


def reasons(why: Why | None, *, system: str, steered: bool) -> Markup:
    """Return why an answer was mixed as it was."""
    if why is None:
        return Markup(_macros().fixed(system, steered))
    favourite, colours = int(why.chances.argmax()), _colours(why.axes)
    parts = zip(why.features.tolist(), why.geometry.tolist(), why.semantics.tolist(), strict=True)
    rows = zip(why.axes, colours.values(), parts, why.chances.tolist(), strict=True)
    text = _macros().reasons(
        why.layer, why.axes[favourite], float(why.chances[favourite]), float(why.novelty), list(rows), steered
    )
    return Markup(text + _map(why.plane, list(colours.values())))


def _map(plane: Plane, colours: Sequence[str]) -> Markup:
    """Return the plane as SVG."""
    points = [point for cloud in plane.clouds for point in cloud.tolist()] + [plane.here.tolist()]
    low, high = ([pick(point[i] for point in points) for i in (0, 1)] for pick in (min, max))

    def place(point: Sequence[float]) -> tuple[float, float]:
        x, y = ((point[i] - low[i]) / ((high[i] - low[i]) or 1.0) for i in (0, 1))
        return _MARGIN + x * (_WIDTH - 2 * _MARGIN), _MARGIN + (1 - y) * (_HEIGHT - 2 * _MARGIN)

    clouds = [
        (colour, [place(point) for point in cloud.tolist()])
        for colour, cloud in zip(colours, plane.clouds, strict=True)
    ]
    return Markup(_macros().map(_WIDTH, _HEIGHT, clouds, place(plane.here.tolist())))


def reliability(report: Mapping[str, Any] | None) -> Markup:
    """Return the reliability diagrams of a report with what they say, or why there are none."""
    if report is None:
        return Markup(_macros().hint("This run has no report.json, so no confidence was measured."))
    try:
        from mocae.report.figures import draw_reliability
    except ModuleNotFoundError as error:
        return Markup(_macros().hint(f"{error.name} is not installed; run: pip install 'mocae[eval]'"))
    plate = draw_reliability(report)
    return Markup(_macros().reliability(plate.panels) if plate.panels else _macros().hint(plate.absent))
