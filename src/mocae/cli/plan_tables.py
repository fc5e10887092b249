"""A plan as tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from mocae.cli.fitting import print_fitted
from mocae.pipelines.plan import Plan

__all__ = ["print_plan", "si"]


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


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print one table of what is trained and one of what it costs; `console` is stdout unless given."""
    out = console or Console()
    base = plan.base
    out.print(
        f"[bold]{plan.recipe}[/bold]: {plan.model or 'base.model not set'}, {si(base.n_parameters)} parameters, "
        f"{base.n_layers} layers (from {base.origin}); experts from layer {base.from_layer} up, "
        f"{len(base.adapted)} linears"
    )
    trained = Table("adapter", *(_right(name) for name in ("parameters", "rows", "tokens", "FLOPs")))
    for expert in plan.experts:
        trained.add_row(
            expert.name,
            si(expert.n_parameters),
            si(expert.n_rows),
            si(expert.n_tokens),
            si(expert.flops),
        )
    trained.add_section()
    trained.add_row("all", si(sum(e.n_parameters for e in plan.experts)), "", si(plan.n_tokens), si(plan.flops))
    print_fitted(out, trained, elsewhere="--json has them")
    costs = Table("what", _right("estimate"))
    costs.add_row("full fine-tuning of every axis instead, FLOPs", si(plan.full_finetuning_flops))
    costs.add_row(f"peak memory, training on {plan.device}", si(plan.training_memory_bytes, "B"))
    costs.add_row("peak memory, serving", si(plan.serving_memory_bytes, "B"))
    costs.add_row("artifact on disk", si(plan.disk_bytes, "B"))
    costs.add_row("read per generated token", si(plan.bytes_per_token, "B"))
    print_fitted(out, costs)
    if plan.n_tokens is None:
        out.print("rows are unknown where a source has no limit and cannot be read here; set its limit")


def _right(name: str) -> Column:
    return Column(name, justify="right")
