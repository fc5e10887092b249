"""How far the axes lie apart: task features, subspaces and task vectors of every two experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from mocae.report.colours import INK, MUTED, axis_colour
from mocae.report.figures.canvas import Panel, Plate, canvas, shorten, to_panel
from mocae.report.schema import axis_names, lookup, read_estimate

__all__ = ["draw_overlap"]

_WIDTH = 350


def draw_overlap(report: Mapping[str, Any]) -> Plate:
    """Return three panels: CKA of task features, angles between subspaces, cosines of task vectors by layer.

    A pair of axes is drawn in the colours of both. Grey marks are what unrelated experts would show.
    """
    found = lookup(report, "collapse", "overlap") or {}
    pairs = list(found.get("pairs") or ())
    if not pairs:
        reason = found.get("absent") or "The run did not compare the experts with each other."
        return Plate(absent=str(reason))
    axes = axis_names(report)
    panels = [draw(pairs, axes) for draw in (_features, _angles, _vectors)]
    return Plate(tuple(panel for panel in panels if panel is not None))


def _colours(pair: Mapping[str, Any], axes: Sequence[str]) -> tuple[str, str]:
    return axis_colour(str(pair["first"]), axes), axis_colour(str(pair["second"]), axes)


def _name(pair: Mapping[str, Any]) -> str:
    return f"{shorten(str(pair['first']), 12)} / {shorten(str(pair['second']), 12)}"


def _features(pairs: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Panel | None:
    shown = [pair for pair in pairs if read_estimate(pair.get("cka")).value is not None]
    if not shown:
        return None
    with canvas(_WIDTH, 84 + 40 * len(shown)) as figure:
        ax = figure.subplots()
        ax.set_title("task features (CKA)")
        spoken = []
        for y, pair in enumerate(shown):
            value = float(pair["cka"])
            for colour, shift in zip(_colours(pair, axes), (-0.14, 0.14), strict=True):
                ax.barh(y + shift, value, height=0.28, color=colour)
            ax.text(1.16, y, f"{value:.2f}", ha="right", va="center", color=INK, fontsize=11.5)
            chance = read_estimate(pair.get("cka_chance")).value
            if chance is not None:
                ax.vlines(chance, y - 0.42, y + 0.42, color=MUTED, linewidth=2)
            spoken.append(f"{_name(pair)} {value:.2f}" + ("" if chance is None else f", chance {chance:.2f}"))
        ax.set_yticks(range(len(shown)), [_name(pair).replace(" / ", "\n") for pair in shown], fontsize=10.5)
        ax.set(xlim=(0, 1.16), ylim=(len(shown) - 0.5, -0.5), xlabel="0 unrelated, 1 alike; grey: by chance")
        ax.set_xticks((0, 0.5, 1))
        _plain(ax)
        return to_panel(figure, key="overlap-cka", description="CKA of task features. " + "; ".join(spoken))


def _angles(pairs: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Panel | None:
    shown = [pair for pair in pairs if pair.get("angles")]
    if not shown:
        return None
    with canvas(_WIDTH, 250) as figure:
        ax = figure.subplots()
        ax.set_title("subspaces (angles)")
        longest = max(len(pair["angles"]) for pair in shown)
        for pair in shown:
            if pair.get("angles_chance"):
                ax.plot(
                    range(1, len(pair["angles_chance"]) + 1), pair["angles_chance"], color=MUTED, linewidth=3, alpha=0.4
                )
        for pair in shown:
            _two_coloured(ax, range(1, len(pair["angles"]) + 1), pair["angles"], _colours(pair, axes))
        ax.set(ylim=(-4, 94), xlim=(0.7, longest + 0.3), xlabel="direction, the closest first; grey: by chance")
        ax.set_yticks((0, 30, 60, 90), ("0°", "30°", "60°", "90°"))
        ax.set_xticks(sorted({1, longest} | {n for n in range(2, longest) if longest <= 8}))
        ax.grid(axis="y")
        _plain(ax)
        spoken = "; ".join(f"{_name(p)} " + ", ".join(f"{a:.0f}" for a in p["angles"]) for p in shown)
        return to_panel(figure, key="overlap-angles", description=f"Principal angles in degrees. {spoken}")


def _vectors(pairs: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Panel | None:
    shown = [pair for pair in pairs if pair.get("cosine_by_layer")]
    if not shown:
        return None
    with canvas(_WIDTH, 250) as figure:
        ax = figure.subplots()
        ax.set_title("task vectors (cosine)")
        ax.axhline(0, color=MUTED, linewidth=3, alpha=0.4)
        layers = sorted({int(layer) for pair in shown for layer in pair["cosine_by_layer"]})
        for pair in shown:
            own = {int(layer): float(value) for layer, value in pair["cosine_by_layer"].items()}
            _two_coloured(ax, sorted(own), [own[layer] for layer in sorted(own)], _colours(pair, axes))
        reach = max(0.1, *(abs(float(v)) for pair in shown for v in pair["cosine_by_layer"].values())) * 1.15
        ax.set(ylim=(-reach, reach), xlabel="decoder layer; grey: unrelated")
        ax.set_xticks(layers if len(layers) <= 8 else layers[:: -(-len(layers) // 8)])
        ax.set_xlim(layers[0] - 0.3, layers[-1] + 0.3)
        ax.grid(axis="y")
        _plain(ax)
        spoken = "; ".join(
            f"{_name(p)} " + ", ".join(f"layer {k} {float(v):+.2f}" for k, v in p["cosine_by_layer"].items())
            for p in shown
        )
        return to_panel(figure, key="overlap-cosine", description=f"Cosine of task vectors by layer. {spoken}")


def _two_coloured(ax: Axes, x: Sequence[int] | range, y: Sequence[float], colours: tuple[str, str]) -> None:
    """Draw one line in dashes of two colours, its points half and half."""
    for number, colour in enumerate(colours):
        ax.plot(x, y, color=colour, linewidth=2.2, linestyle=(6 * number, (6, 6)), zorder=2)
    left, right = colours
    ax.plot(
        x, y, "o", markersize=7, fillstyle="left", color=left, markerfacecoloralt=right, markeredgewidth=0, zorder=3
    )


def _plain(ax: Axes) -> None:
    ax.tick_params(length=0)
    ax.tick_params(axis="y", labelcolor=INK, labelsize=10.5)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_axisbelow(True)
