"""The results as Markdown, and as one plot for documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mocae.report.ablation.reading import confidence_of, read_parts, sorted_names

__all__ = ["ablation_table", "draw_ablation"]


def draw_ablation(summary: Mapping[str, Any]) -> str:
    """Return an SVG that stands alone: systems as rows, or, for a sweep, lines over the swept values."""
    from mocae.report.figures.ablation import draw_means_alone, draw_sweep_alone

    return draw_sweep_alone(summary) if len(summary["settings"]) > 1 else draw_means_alone(summary)


def ablation_table(summary: Mapping[str, Any]) -> str:
    """Return the results as Markdown tables, one a setting, best mean first; then what each part buys."""
    axes = [axis["name"] for axis in summary["recipe"]["axes"]]
    seeds = summary["seeds"]
    told = "over prompts (drawn by topic) and seeds" if len(seeds) > 1 else "over prompts (drawn by topic)"
    notes = "; ".join(summary["notes"])
    lines = [
        f"{f'{notes}. ' if notes else ''}Seeds {seeds}. \u00b1: standard deviation over seeds. Intervals: {told}.",
        "",
    ]
    for name, setting in summary["settings"].items():
        if name:
            lines += [f"### {name}", ""]
        head = ["system", "mean over axes", *axes, "ECE", *(f"minus {rival}" for rival in setting["differences"])]
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for system in sorted_names(setting):
            entry = setting["systems"][system]
            cells = [system, _cell(entry["mean_axis_score"])]
            cells += [_cell(entry["axis_scores"][axis]) for axis in axes]
            cells.append(_cell(entry.get("routing", {}).get("ece")))
            for rival, rows in setting["differences"].items():
                cells.append("" if rival == system else _signed(rows.get(system)))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
        lines += _parts(setting, confidence_of(summary))
        lines += _left_out(setting)
    return "\n".join(lines)


def _parts(setting: Mapping[str, Any], confidence: float) -> list[str]:
    readings = read_parts(setting, confidence=confidence)
    if not readings:
        return []
    lines = ["| part | changed | difference | p (Holm) | reading |", "|---|---|---|---|---|"]
    for part, raw in zip(readings, setting["parts"], strict=True):
        p = "" if part.p is None else f"{part.p:.3f}"
        cells = (f"{part.parent} minus {part.system}", part.changed, _signed(raw["difference"]), p, part.verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return [*lines, ""]


def _left_out(setting: Mapping[str, Any]) -> list[str]:
    """Return how sure each system is of the kinds of prompts that were left out of its calibration."""
    systems = setting.get("left_out") or {}
    if not systems:
        return []
    columns = ("right", "confidence", "ece", "auroc", "known_ece")
    head = ("system", "left out", "share right", "mean confidence", "ECE", "AUROC of novelty", "ECE of other prompts")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, entry in systems.items():
        cells = [name, ", ".join(entry["probes"]), *(_cell(entry[key]) for key in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(spread: Mapping[str, Any] | None) -> str:
    if spread is None or spread["mean"] is None:
        return ""
    return f"{spread['mean']:.3f}" + ("" if spread["std"] is None else f" \u00b1 {spread['std']:.3f}")


def _signed(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return ""
    interval = "" if estimate["low"] is None else f" [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"
    return f"{estimate['value']:+.3f}{interval}"
