"""`mocae run`: train the experts, fit the router, compare the systems, write the report."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

from typer import Option

from mocae.cli import options as opt

__all__ = ["run"]


def run(
    recipe: opt.RecipePath,
    out: Annotated[Path, Option(metavar="DIR", help="Folder for everything the run makes.")],
    settings: opt.Settings = None,
    systems: Annotated[str | None, Option(metavar="A,B", help="Compare only these systems of the recipe.")] = None,
    stages: Annotated[
        Path | None, Option(metavar="DIR", help="Share finished stages with other runs through this folder.")
    ] = None,
    as_json: opt.AsJson = False,
    progress: opt.Progress = True,
    processes: opt.Processes = None,
    overwrite: opt.Overwrite = False,
    lifeline: Annotated[
        bool, Option("--lifeline", hidden=True, help="End when standard input ends, as the process behind it.")
    ] = False,
) -> None:
    """Run a recipe from data to report. A run that was stopped goes on where it was.

    With --overwrite a changed recipe replaces its finished run: what the change does not touch is not made again.

    [bold]mocae run pocket --out out/pocket[/bold]

    [bold]mocae run pocket --out out/r16 --set experts.r=16 --systems base,alignx[/bold]

    Several processes or machines share a run that a launcher starts; see docs/scale.md:

    [bold]accelerate launch --config_file recipes/accelerate/gpus.yaml -m mocae run RECIPE --out DIR[/bold]
    """
    if lifeline:
        threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    from mocae.cli.tables import echo_result
    from mocae.distributed import is_main
    from mocae.pipelines.check import load_checked
    from mocae.pipelines.run import run as run_recipe
    from mocae.stages.pool import StagePool

    result = run_recipe(
        load_checked(recipe, settings or ()),
        out=out,
        systems=opt.words(systems, "--systems"),
        progress=progress,
        processes=processes,
        pool=StagePool(stages) if stages is not None else None,
        overwrite=overwrite,
        where=str(recipe),
    )
    if is_main():
        echo_result(result, as_json=as_json)


def _end_with_parent() -> None:
    """End this process at once when its standard input ends: a pipe whose other end the parent keeps open.

    The system closes that end even when the parent is killed, on every platform. Nothing is cleaned up on the way out:
    what is unfinished is left as a kill leaves it, locks are the system's to release.
    """
    source = sys.stdin.fileno()
    while os.read(source, 4096):
        pass
    os._exit(1)
