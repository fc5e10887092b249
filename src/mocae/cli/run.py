"""`mocae run`: train the experts, fit the router, compare the systems, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mocae.cli.lifeline import end_with_parent
from mocae.cli.options import AsJson, Overwrite, Processes, RecipePath, Settings, words

__all__ = ["run"]


def run(
    recipe: RecipePath,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for everything the run makes.")],
    settings: Settings = None,
    systems: Annotated[
        str | None, typer.Option("--systems", metavar="A,B", help="Compare only these systems of the recipe.")
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option("--stages", metavar="DIR", help="Share finished stages with other runs through this folder."),
    ] = None,
    as_json: AsJson = False,
    progress: Annotated[bool, typer.Option(help="Show progress on stderr.")] = True,
    processes: Processes = None,
    overwrite: Overwrite = False,
    lifeline: Annotated[
        bool, typer.Option("--lifeline", hidden=True, help="End when standard input ends, as the process behind it.")
    ] = False,
) -> None:
    """Run a recipe from data to report. A run that was stopped goes on where it was.

    A recipe that was changed may run again in its folder: what the change does not touch is not made again.

    [bold]mocae run pocket --out out/pocket[/bold]

    [bold]mocae run pocket --out out/r16 --set experts.r=16 --systems base,alignx[/bold]

    Several processes or machines share a run that a launcher starts; see docs/scale.md:

    [bold]accelerate launch --config_file recipes/accelerate/gpus.yaml -m mocae run RECIPE --out DIR[/bold]
    """
    if lifeline:
        end_with_parent()
    from mocae.cli.run_table import print_result
    from mocae.config import load_recipe
    from mocae.distributed import is_main
    from mocae.pipelines.check import validate as check
    from mocae.pipelines.run import run as run_recipe
    from mocae.stages.pool import StagePool

    loaded = load_recipe(recipe, settings or ())
    check(loaded, where=str(recipe))
    pool = StagePool(stages) if stages is not None else None
    result = run_recipe(
        loaded,
        out=out,
        systems=words(systems, "--systems"),
        progress=progress,
        processes=processes,
        pool=pool,
        overwrite=overwrite,
    )
    if not is_main():
        return
    if as_json:
        typer.echo(result.report_path.read_text(encoding="utf-8"))
    else:
        print_result(result.report, result.html_path)
