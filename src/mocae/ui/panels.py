"""What the page shows beside text, as HTML: bars of weights, the reasons for a mix, the reliability of routers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from mocae.report.colours import AXIS_COLOURS, THEME, axis_colour, css_colours
from mocae.ui.why import Plane, Why

__all__ = ["asked", "bars", "reasons", "reliability", "slider_class", "style"]

_MINUS = "\u2212"
_WIDTH, _HEIGHT, _MARGIN = 320, 220, 14


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


def _css(axis: str, axes: Sequence[str]) -> str:
    """Return the CSS colour of an axis, the one the report gives it."""
    return THEME[axis_colour(axis, axes)]


def asked(text: str) -> Markup:
    """Return what the user has written as it stands: no Markdown, no HTML, its lines kept.

    >>> asked("<b>*")
    Markup('<div class="asked">&lt;b&gt;*</div>')
    """
    return Markup('<div class="asked">{}</div>').format(text)


def bars(weights: Mapping[str, float]) -> Markup:
    """Return one bar an expert, as long as its weight; weights above 1 shrink all of them.

    >>> "0.75" in bars({"helpfulness": 0.75, "honesty": 0.25})
    True
    """
    axes = list(weights)
    most = max(1.0, *map(abs, weights.values()))
    rows = [
        Markup(
            '<div class="weight" data-axis="{axis}" data-weight="{value:.4f}" style="--c: {colour}">'
            '<span class="name">{axis}</span><span class="track"><i style="width: {share:.1f}%"></i></span>'
            '<span class="number">{shown}</span></div>'
        ).format(
            axis=axis,
            value=value,
            colour=_css(axis, axes),
            share=100 * abs(value) / most,
            shown=f"{value:.2f}".replace("-", _MINUS),
        )
        for axis, value in weights.items()
    ]
    spoken = ", ".join(f"{axis} {value:.2f}" for axis, value in weights.items())
    return Markup('<div class="weights" role="img" aria-label="routing weights: {}">{}</div>').format(
        spoken, Markup("").join(rows)
    )


def reasons(why: Why | None, *, system: str, steered: bool) -> Markup:
    """Return why an answer was mixed as it was."""
    if why is None:
        note = ", multiplied by your factors and scaled back to the sum it had" if steered else ""
        return Markup('<p class="hint"><b>{}</b> has no router: its mix is the same for every prompt{}.</p>').format(
            system, note
        )
    favourite = int(why.chances.argmax())
    chance = float(why.chances[favourite])
    return Markup("<p>{}</p>{}{}<p class='hint'>{}</p>").format(
        Markup(
            "The router read the prompt where it enters layer {layer}. Its favourite is <b>{axis}</b>: the chance that "
            "this expert's answer alone would be acceptable is <b class='confidence'>{chance:.0f} %</b>.{none}{novel}"
            "{steered}"
        ).format(
            layer=why.layer,
            axis=why.axes[favourite],
            chance=100 * chance,
            none=" <b>No expert is likely to answer this acceptably.</b>" if chance < 0.5 else "",
            novel=_novelty(why.novelty),
            steered=" Your factors were applied after that." if steered else "",
        ),
        _parts(why),
        _map(why.plane, why.axes),
        "Dots: training prompts of each axis, cross: this prompt, in the plane of the latent space in which the "
        "centres of the axes lie farthest apart.",
    )


def _novelty(novelty: float) -> str:
    """Return what is to be said of a prompt's novelty, nothing where the router does not say."""
    if math.isnan(novelty):
        return ""
    unlike = " It knows few prompts like this one, so its chances are lowered." if novelty > 0.95 else ""
    return f" {100 * novelty:.0f} % of the calibration prompts were more alike the others.{unlike}"


def _parts(why: Why) -> Markup:
    """Return the sum behind the chances as a table."""
    columns = (why.features, why.geometry, why.semantics)
    rows = []
    for i, axis in enumerate(why.axes):
        cells = [Markup("<td>{}</td>").format(f"{float(c[i]):+.1f}".replace("-", _MINUS)) for c in columns]
        row = '<tr><th scope="row" style="--c: {}">{}</th>{}<td>{:.2f}</td></tr>'
        rows.append(Markup(row).format(_css(axis, why.axes), axis, Markup("").join(cells), float(why.chances[i])))
    head = Markup(
        "<tr><td></td><th title='a linear map of the latent coordinates'>features</th>"
        "<th title='fractal calibrator: how the prompt sits in the cloud of the axis'>geometry</th>"
        "<th title='natural calibrator: log-density of the prompt under the axis'>semantics</th>"
        "<th title='that the answer of this expert would be acceptable'>chance</th></tr>"
    )
    return Markup(
        '<p class="hint">{}</p><div class="parts"><table><thead>{}</thead><tbody>{}</tbody></table></div>'
    ).format("What spoke for (+) and against each expert, in nats:", head, Markup("").join(rows))


def _map(plane: Plane, axes: Sequence[str]) -> Markup:
    """Return the plane as SVG."""
    points = [point for cloud in plane.clouds for point in cloud.tolist()] + [plane.here.tolist()]
    low, high = ([pick(point[i] for point in points) for i in (0, 1)] for pick in (min, max))

    def place(point: Sequence[float]) -> tuple[float, float]:
        x, y = ((point[i] - low[i]) / ((high[i] - low[i]) or 1.0) for i in (0, 1))
        return _MARGIN + x * (_WIDTH - 2 * _MARGIN), _MARGIN + (1 - y) * (_HEIGHT - 2 * _MARGIN)

    dots = [
        Markup('<g fill="{}">{}</g>').format(
            _css(axis, axes),
            Markup("").join(
                Markup('<circle cx="{:.0f}" cy="{:.0f}" r="2.5"/>').format(*place(point)) for point in cloud.tolist()
            ),
        )
        for axis, cloud in zip(axes, plane.clouds, strict=True)
    ]
    cross = '<path class="here" d="M{0:.0f} {1:.0f}m-7 -7l14 14m0 -14l-14 14"/>'
    return Markup('<svg class="map" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        _WIDTH, _HEIGHT, "the prompt among the training prompts of each axis", Markup("").join(dots),
        Markup(cross).format(*place(plane.here.tolist())),
    )  # fmt: skip


def reliability(report: Mapping[str, Any] | None) -> Markup:
    """Return the reliability diagrams of a report with what they say, or why there are none."""
    if report is None:
        return Markup('<p class="hint">This run has no report.json, so no confidence was measured.</p>')
    try:
        from mocae.report.figures import draw_reliability
    except ModuleNotFoundError as error:
        return Markup("<p class='hint'>{} is not installed; run: pip install 'mocae[eval]'</p>").format(error.name)
    plate = draw_reliability(report)
    if not plate.panels:
        return Markup('<p class="hint">{}</p>').format(plate.absent)
    panels: Iterable[Markup] = (
        Markup('<div class="panel" style="--w: {}">{}</div>').format(panel.width, panel.svg) for panel in plate.panels
    )
    return Markup("<p>{}</p><div class='panels'>{}</div>").format(
        "Does a confidence mean what it says? Test prompts are sorted by how sure the router was of its favourite; the "
        "curve says how often that expert's answer was acceptable. On the diagonal, 80 % sure is right 8 times in 10. "
        "ECE is the mean distance from it.",
        Markup("").join(panels),
    )
