"""The figure of a benchmark: decoding time of every system as a multiple of the base model's."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mocae.bench.result import Benchmark
from mocae.errors import ConfigError
from mocae.outputs import MADE

__all__ = ["check_format", "draw"]

_FORMATS = (".svg", ".png", ".pdf")
_COLOURS = ("#35618f", "#d55e00", "#009e73", "#b8860b")


def check_format(path: Path) -> None:
    """Refuse a file whose ending is of no format that can be drawn.

    Raises:
        ConfigError: so it is.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--plot {str(path)!r}: cannot draw {path.suffix!r}. Accepted: {', '.join(_FORMATS)}")


def draw(result: Benchmark, path: Path) -> Path:
    """Write the figure of decoding times, one bar a system and batch size on a logarithmic scale; return the file.

    Raises:
        ConfigError: the ending of the file is not known.
    """
    check_format(path)
    systems = list(dict.fromkeys(row.system for row in result.rows))
    batches = sorted({row.batch for row in result.rows})
    height = 0.8 / len(batches)
    figure = Figure(figsize=(7.5, 0.9 + 0.22 * len(systems) * (1 + len(batches))), layout="constrained")
    ax = figure.subplots()
    for index, batch in enumerate(batches):
        rows = {row.system: row for row in result.rows if row.batch == batch}
        places = [y + (index - (len(batches) - 1) / 2) * height for y, s in enumerate(systems) if s in rows]
        ratios = [rows[s].decode_ratio for s in systems if s in rows]
        ax.barh(places, ratios, height=0.9 * height, color=_COLOURS[index % len(_COLOURS)], label=f"batch {batch}")
        for y, ratio in zip(places, ratios, strict=True):
            ax.text(ratio * 1.04, y, f"{ratio:.2f}", va="center", fontsize=8)
    ax.set_xscale("log")
    ax.axvline(1, color="#5b6673", linewidth=1, linestyle=(0, (3, 3)))
    ax.set_xlim(0.8, 1.6 * max(row.decode_ratio for row in result.rows))
    ticks = [t for t in (1, 2, 3, 5, 10, 20, 50, 100) if t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{t}×" for t in ticks])  # noqa: RUF001 - a multiplication sign is meant
    ax.minorticks_off()
    ax.set_yticks(range(len(systems)), systems)
    ax.invert_yaxis()
    ax.set_title(f"Time per token after the first, base model = 1 ({result.settings['config']})", loc="left")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower right")
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        named = {"Software": MADE} if path.suffix.lower() == ".png" else {"Creator": MADE}
        figure.savefig(path, dpi=120, metadata=named)
    return path
