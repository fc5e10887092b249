"""`mocae plan`: what will this run cost?"""

from __future__ import annotations

import json

import typer

from mocae.cli.options import AsJson, RecipePath, Settings

__all__ = ["plan"]


def plan(recipe: RecipePath, settings: Settings = None, as_json: AsJson = False) -> None:
    """Tell what a run will cost, before it: parameters, tokens, FLOPs, memory, disk. Loads no weights.

    [bold]mocae plan recipes/llama-2-7b.yaml[/bold]

    [bold]mocae plan recipes/llama-2-7b.yaml --set experts.r=16 --json[/bold]
    """
    from mocae.cli.plan_tables import print_plan
    from mocae.config import load_recipe
    from mocae.pipelines.plan import plan as make_plan

    made = make_plan(load_recipe(recipe, settings or ()))
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        print_plan(made)
