"""`mocae validate`: is this recipe right?"""

from __future__ import annotations

import typer

from mocae.cli.options import RecipePath, Settings

__all__ = ["validate"]


def validate(recipe: RecipePath, settings: Settings = None) -> None:
    """Check a recipe: keys, ranges, names of plug-ins, data files, limits that are never reached. Reads no weights.

    [bold]mocae validate pocket[/bold]

    [bold]mocae validate recipes/real-small.yaml --set data_root=data[/bold]
    """
    from mocae.config import load_recipe
    from mocae.pipelines.check import unreached_limits
    from mocae.pipelines.check import validate as check

    loaded = load_recipe(recipe, settings or ())
    for note in [*check(loaded, where=str(recipe)), *unreached_limits(loaded)]:
        typer.echo(f"note: {note}", err=True)
    axes, systems = ", ".join(loaded.axis_names), len(loaded.systems)
    typer.echo(f"{recipe}: ok ({len(loaded.axes)} axes: {axes}; {systems} systems)")
