"""`mocae ablate`: one recipe over several seeds and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from mocae.cli.options import Progress, fitting_threads, words

__all__ = ["ablate"]


def ablate(
    recipe: Annotated[Path, Argument(metavar="RECIPE", help="YAML file.")],
    out: Annotated[Path, Option("--out", "-o", metavar="DIR", help="Folder of the runs and their comparison.")],
    seeds: Annotated[int, Option(metavar="N", help="How many seeds.")] = 3,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Replace a setting in all runs.")
    ] = None,
    vary: Annotated[
        list[str] | None, Option(metavar="KEY=V1,V2", help="Sweep a setting; axes.* stands for every axis.")
    ] = None,
    systems: Annotated[str | None, Option(metavar="A,B", help="Compare only these.")] = None,
    jobs: Annotated[
        int, Option(metavar="N", help="Runs at a time, each a process; for tiny models on many cores.")
    ] = 1,
    threads: Annotated[
        int | None,
        Option(
            metavar="N",
            callback=fitting_threads,
            help="Threads of a run; else all, or the cores shared out among jobs.",
        ),
    ] = None,
    progress: Progress = True,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace finished runs with other settings.")] = False,
) -> None:
    """Run a recipe over seeds and settings and say what each part buys.

    Finished stages are not made again: neither after a kill, nor for another setting that does not touch them. The
    folder gets ablation.html (read this), ablation.json, ablation.md and ablation.svg.

    [bold]mocae ablate recipes/pocket-ablation.yaml --seeds 3 --jobs 2 --out out/ablation[/bold]

    [bold]mocae ablate recipes/pocket.yaml --vary 'axes.*.train.options.conflict=0,0.5,1' --out out/conflict[/bold]
    """
    from mocae.pipelines.ablation.ablate import ablate as run_ablation

    made = run_ablation(
        recipe,
        out=out,
        seeds=seeds,
        overrides=settings or (),
        vary=vary or (),
        systems=words(systems, "--systems"),
        jobs=jobs,
        threads=threads,
        progress=progress,
        overwrite=overwrite,
    )
    echo(made.table_path.read_text(encoding="utf-8"))
    echo(f"page:    {made.page_path}\nresults: {made.json_path}\nplot:    {made.plot_path}")
