"""`mocae validate` and `mocae plan`: is this recipe right, and what will its run cost?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typer import echo

from mocae.cli import options as opt

__all__ = ["plan", "validate"]


def validate(recipe: opt.RecipePath, settings: opt.Settings = None) -> None:
    """Check a recipe or a suite and its rows, as a run does first, and count them. Reads no weights.

    Every problem has a line: keys, names, options, the base model, files and their columns, prompts in two splits, rows
    that teach nothing, axes without a judge. Notes tell what could not be checked, and which sets show little.

    [bold]mocae validate pocket[/bold]

    [bold]mocae validate recipes/real-small.yaml --set data_root=data[/bold]
    """
    from mocae.pipelines.check import check, load_checked
    from mocae.pipelines.suite import is_suite

    if is_suite(recipe):
        _validate_suite(recipe, settings or ())
        return
    loaded = load_checked(recipe, settings or ())
    checked = check(loaded, where=str(recipe))
    for note in checked.notes:
        echo(f"note: {note}", err=True)
    axes, systems = ", ".join(loaded.axis_names), len(loaded.systems)
    echo(f"{recipe}: ok ({len(loaded.axes)} axes: {axes}; {systems} systems)")
    if checked.rows is None:
        return
    counts = checked.rows.counts()
    width = max(map(len, loaded.axis_names))
    for axis in loaded.axis_names:
        splits = ", ".join(f"{counts[split].get(axis, 0)} {split}" for split in counts)
        echo(f"  {axis:<{width}}  {splits}")
    if checked.absent:
        echo(f"  not counted, since not here: {', '.join(checked.absent)}")


def _validate_suite(path: Path, settings: Sequence[str]) -> None:
    from mocae.pipelines.check.suite import check_suite
    from mocae.pipelines.suite import load_suite

    suite = load_suite(str(path), settings)
    rows = check_suite(suite)
    echo(f"{path}: ok (a suite of {len(suite.axes)} axes: {', '.join(suite.axis_names)})")
    width = max(map(len, suite.axis_names))
    for axis in suite.axis_names:
        echo(f"  {axis:<{width}}  {sum(row.axis == axis for row in rows.tests)} test")


def plan(recipe: opt.RecipePath, settings: opt.Settings = None, as_json: opt.AsJson = False) -> None:
    """Tell what a run will cost, before it: parameters, tokens, FLOPs, memory, disk. Loads no weights.

    [bold]mocae plan recipes/llama-2-7b.yaml[/bold]

    [bold]mocae plan recipes/llama-2-7b.yaml --set experts.r=16 --json[/bold]
    """
    from mocae.cli.tables import print_plan
    from mocae.config import load_recipe
    from mocae.pipelines.plan import plan as make_plan

    made = make_plan(load_recipe(recipe, settings or ()))
    for note in made.notes:
        echo(f"note: {note}", err=True)
    if as_json:
        opt.echo_json(made.to_dict())
    else:
        print_plan(made)
