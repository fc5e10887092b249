"""The plot of an ablation: every system's mean over the axes, with its spread over seeds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

__all__ = ["draw_ablation"]


def draw_ablation(summary: Mapping[str, Any]) -> str:
    """Return an SVG of `ablation.json`: systems as rows; with one swept key, lines over its values instead."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    settings = summary["settings"]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mocae", "font.size": 10}):
        figure = _lines(plt, settings) if len(settings) > 1 else _rows(plt, next(iter(settings.values())))
        figure.text(0.01, 0.005, "; ".join(summary["notes"]), fontsize=8, color="#666666")
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()


def _rows(plt: Any, setting: Mapping[str, Any]) -> Any:
    systems = sorted(setting["systems"].items(), key=lambda item: item[1]["mean_axis_score"]["mean"] or 0)
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(systems) + 1.2), layout="constrained")
    for y, (name, entry) in enumerate(systems):
        spread = entry["mean_axis_score"]
        if spread["mean"] is None:
            continue
        colour = "#D55E00" if name == "alignx" else "#0072B2"
        axes.plot(spread["values"], [y] * len(spread["values"]), "o", color=colour, alpha=0.35, markersize=5)
        axes.plot([spread["mean"]], [y], "D", color=colour, markersize=7)
    axes.set_yticks(range(len(systems)), [name for name, _ in systems])
    axes.set_xlabel("mean score over the axes (diamond: mean over seeds, dots: seeds)")
    axes.set_xlim(0, 1)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _lines(plt: Any, settings: Mapping[str, Any]) -> Any:
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    names = list(settings)
    every = list(next(iter(settings.values()))["systems"])
    systems = [s for s in every if s != "base" and not s.startswith("expert:")] or every
    palette = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
    for i, system in enumerate(systems):
        means = [settings[name]["systems"][system]["mean_axis_score"] for name in names]
        y = [float("nan") if m["mean"] is None else m["mean"] for m in means]
        err = [m["std"] or 0 for m in means]
        shift = (i - len(systems) / 2) * 0.02
        axes.errorbar(
            [x + shift for x in range(len(names))],
            y,
            yerr=err,
            label=system,
            marker="o",
            capsize=3,
            color=palette[i % len(palette)],
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("mean score over the axes (mean ± sd over seeds)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
