"""`mocae validate` and `mocae plan`: is this recipe right, and what will its run cost?"""

from __future__ import annotations

from typer import echo

from mocae.cli import options as opt

__all__ = ["plan", "validate"]


def validate(recipe: opt.RecipePath, settings: opt.Settings = None) -> None:
    """Check a recipe: keys, ranges, names of plug-ins, data files, limits that are never reached. Reads no weights.

    [bold]mocae validate pocket[/bold]

    [bold]mocae validate recipes/real-small.yaml --set data_root=data[/bold]
    """
    from mocae.config import load_recipe
    from mocae.pipelines.check import unreached_limits
    from mocae.pipelines.check import validate as check

    loaded = load_recipe(recipe, settings or ())
    for note in [*check(loaded, where=str(recipe)), *unreached_limits(loaded)]:
        echo(f"note: {note}", err=True)
    axes, systems = ", ".join(loaded.axis_names), len(loaded.systems)
    echo(f"{recipe}: ok ({len(loaded.axes)} axes: {axes}; {systems} systems)")


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
