"""Tables in a terminal that may be narrow: a number is printed whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from typer import echo

from mocae.axes import stored_probe
from mocae.metrics import Unit, metric
from mocae.report import find
from mocae.report.schema import lookup
from mocae.report.tables import metric_paths

if TYPE_CHECKING:
    from pathlib import Path

    from mocae.pipelines.plan import Plan
    from mocae.pipelines.summary import RunResult

__all__ = ["echo_result", "numbers", "print_fitted", "print_plan", "print_result", "si"]

_UNBOUNDED = 10_000
_NAME = 20
"""A name is broken between words down to this width before a column is left out."""
_WIDE = 120
"""Columns of a terminal in which the intervals fit."""


def numbers(*headings: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(heading, justify="right", vertical="bottom") for heading in headings]


def print_fitted(out: Console, table: Table, *, elsewhere: str = "") -> None:
    """Print `table` without the last columns that `out` is too narrow for, and say which those are.

    The first column holds names and may be broken between words; it and the one after it always stay.

    Args:
        out: where to.
        table: made for this one call; its columns are changed.
        elsewhere: where all numbers are, as in "report.html has them".
    """
    first, *rest = table.columns
    for column in rest:
        column.no_wrap, column.overflow = True, "crop"
    first.overflow = "fold"
    names = [str(cell) for cell in first.cells]
    words = [word for name in names for word in name.split()]
    spare = max(map(cell_len, names), default=0) - max(_NAME, *map(cell_len, words), 0)
    left_out: list[str] = []
    while len(table.columns) > 2 and _wanted(out, table) - max(0, spare) > out.width:
        left_out.insert(0, " ".join(str(table.columns.pop().header).split()))
    out.print(table)
    if left_out:
        hint = f"; {elsewhere}" if elsewhere else ""
        out.print(f"not shown in {out.width} columns: {', '.join(left_out)}{hint}", highlight=False, markup=False)


def _wanted(out: Console, table: Table) -> int:
    return out.measure(table, options=out.options.update(max_width=_UNBOUNDED)).maximum


def echo_result(result: RunResult, *, as_json: bool) -> None:
    """Print the report of a run or an evaluation, as JSON or as a table."""
    if as_json:
        echo(result.report_path.read_text(encoding="utf-8"))
    else:
        print_result(result.report, result.html_path)


def print_result(report: Mapping[str, Any], html_path: Path, console: Console | None = None) -> None:
    """Print one row a system and where the report lies; `console` is stdout unless given.

    The columns are the mean of the axes, then the metrics that the prompts of each axis carry, each with the prompts
    behind it and the half width of its interval. Rates are printed in percent. Columns no system has are left out, and
    so are the last ones where the terminal is too narrow for all; that is said. What was found, what it cost, how far
    to believe it and what to do next stand below.
    """
    out = console or Console()
    systems: Mapping[str, Any] = report["systems"]
    columns = []
    for axis, heading, name, path in _headed(report):
        values = [lookup(system, *path) for system in systems.values()]
        wide = name == "mean_axis_score" or out.width >= _WIDE
        cells = [_cell(value, metric(name).unit, wide=wide) for value in values]
        if any(cells):
            columns.append((axis, heading, f"{metric(name).arrow}\n{_counts(values)}".rstrip(), cells))
    headings = [heading for _, heading, _, _ in columns]
    heads = (
        f"{axis}\n{heading}\n{below}" if headings.count(heading) > 1 else f"{heading}\n{below}"
        for axis, heading, below, _ in columns
    )
    title = f"{report['recipe']['name']}, percent \u00b1 half of the 95 % interval; n prompts"
    table = Table("system", *numbers(*heads), title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for row, name in enumerate(systems):
        table.add_row(name, *(cells[row] or "-" for _, _, _, cells in columns))
    print_fitted(out, table, elsewhere=f"{html_path.name} has them")
    findings = find(report)
    shown = [findings.headline, *(findings.conclusions.get(section) for section in ("forgetting", "room"))]
    shown += [f"{line.title.removesuffix('?')}: {line.text}" for line in findings.lines]
    for text in filter(None, shown):
        out.print(text.replace("FOLDER", str(html_path.parent)), highlight=False, markup=False)
    out.print(f"report: {html_path}", soft_wrap=True, highlight=False)


def _headed(report: Mapping[str, Any]) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return (axis, heading, metric, path) of what a terminal shows: no axis scores, and no factors of a product.

    A pass rate is shown where a probe of the axis carries it, under the label of that probe.
    """
    shown = []
    for axis, name, path in metric_paths(report):
        heading = metric(name).heading
        if name == "pass_rate":
            probes = [stored_probe(probe) for probe in lookup(report, "probes", axis) or ()]
            heading = "\n".join(probe.label or probe.name for probe in probes if name in probe.metrics)
        if heading and name != "axis_score" and not metric(name).part_of:
            shown.append((axis, heading, name, path))
    return shown


def _counts(values: Sequence[Any]) -> str:
    """Return "n 424", or "n 420-424" where the systems differ, "" where nothing was counted."""
    counts = sorted({n for value in values if (n := lookup(value, "n"))})
    return f"n {'-'.join(dict.fromkeys((str(counts[0]), str(counts[-1]))))}" if counts else ""


def _cell(value: Any, unit: Unit, *, wide: bool) -> str:
    """Return an estimate as "81.2 \u00b1 3.0", or "81.2\u00b13" where there is no room, "" when there is none."""
    if not isinstance(value, Mapping) or value.get("value") is None:
        return ""
    factor, digits = (1, 3) if unit not in ("percent", "points", "difference") else (100, 1)
    text, low, high = f"{factor * value['value']:.{digits}f}", value.get("low"), value.get("high")
    if low is None or high is None:
        return text
    half = factor * (high - low) / 2
    return f"{text} \u00b1 {half:.{digits}f}" if wide else f"{text}\u00b1{half:.{digits - 1}f}"


def si(number: int | float | None, unit: str = "") -> str:
    """Return a number with a decimal prefix and three digits.

    >>> si(6_738_415_616)
    '6.74 G'
    >>> si(512, "B")
    '512 B'
    >>> si(None)
    'unknown'
    """
    if number is None:
        return "unknown"
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(number) >= 10**power:
            return f"{number / 10**power:.3g} {prefix}{unit}"
    return f"{number:.3g} {unit}".strip()


def print_plan(plan: Plan) -> None:
    """Print one table of what is trained and one of what it costs."""
    out, base = Console(), plan.base
    out.print(
        f"[bold]{plan.recipe}[/bold]: {plan.model or 'base.model not set'}, {si(base.n_parameters)} parameters, "
        f"{base.n_layers} layers (from {base.origin}); experts from layer {base.from_layer} up, "
        f"{len(base.adapted)} linears"
    )
    trained = Table("adapter", *numbers("parameters", "rows", "tokens", "FLOPs"))
    for expert in plan.experts:
        trained.add_row(expert.name, *map(si, (expert.n_parameters, expert.n_rows, expert.n_tokens, expert.flops)))
    trained.add_section()
    trained.add_row("all", si(sum(e.n_parameters for e in plan.experts)), "", si(plan.n_tokens), si(plan.flops))
    print_fitted(out, trained, elsewhere="--json has them")
    costs = Table("what", *numbers("estimate"))
    costs.add_row("full fine-tuning of every axis instead, FLOPs", si(plan.full_finetuning_flops))
    costs.add_row(f"peak memory, training on {plan.device}", si(plan.training_memory_bytes, "B"))
    costs.add_row("peak memory, serving", si(plan.serving_memory_bytes, "B"))
    costs.add_row("artifact on disk", si(plan.disk_bytes, "B"))
    costs.add_row("read per generated token", si(plan.bytes_per_token, "B"))
    print_fitted(out, costs)
    if plan.n_tokens is None:
        out.print("rows are unknown where a source has no limit and cannot be read here; set its limit")
