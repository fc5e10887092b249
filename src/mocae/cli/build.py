"""`mocae build` and `mocae train-expert`: an artifact from adapters that are there, and one adapter of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Option, echo

from mocae.cli import options as opt

__all__ = ["build", "train_expert"]


def build(
    base: Annotated[str, Option(metavar="ID_OR_PATH", help="Base model of the adapters.")],
    expert: Annotated[list[str], Option(metavar="NAME=ID_OR_PATH", help="A PEFT LoRA adapter. Once for each expert.")],
    calibration: Annotated[Path, Option(metavar="FILE", help="Prompts with axis, probe and facts, see above.")],
    judge: Annotated[list[str], Option(metavar="NAME", help="What decides, or NAME:{JSON options}; repeatable.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder of the artifact.")],
    prompt_format: Annotated[
        str, Option("--format", metavar="NAME", help="How prompts are written, see `mocae ls formats`.")
    ] = "plain",
    max_new_tokens: Annotated[int, Option(min=1, help="Longest answer.")] = 64,
    held_out: Annotated[float, Option(help="Share of the prompts the result is tested on.")] = 0.25,
    seed: Annotated[int, Option(min=0, max=opt.LARGEST_SEED, help="Of everything that is drawn.")] = 0,
    on_bad_row: Annotated[
        Literal["error", "skip"], Option(help="What a row that is damaged or too long does.")
    ] = "error",
    settings: opt.Settings = None,
    as_json: opt.AsJson = False,
    progress: opt.Progress = True,
    processes: opt.Processes = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Make an artifact from LoRA adapters you have: no training, only features, judged answers and a router.

    Adapters may differ in rank, alpha, target modules and rsLoRA. Each line of FILE is a prompt:

    {"prompt": "...", "axis": "honesty", "probe": "question", "facts": {...}}

    axis is the expert whose kind of prompt it is; probe says which judgements count (`mocae ls probes`).

    [bold]mocae build --base meta-llama/Llama-2-7b-hf --expert helpfulness=ada/alpaca-lora --expert honesty=./honest
    --calibration prompts.jsonl --judge reference-truth --out out/mine[/bold]
    """
    from mocae.cli.tables import echo_result
    from mocae.distributed import is_main
    from mocae.pipelines.build import build_recipe, parse_judge
    from mocae.pipelines.run import run as run_recipe

    recipe = build_recipe(
        base=base,
        experts=opt.pairs(expert, "--expert", form="name=adapter", example="honesty=path/to/adapter"),
        calibration=calibration,
        judges=[parse_judge(text) for text in judge],
        prompt_format=prompt_format,
        max_new_tokens=max_new_tokens,
        held_out=held_out,
        seed=seed,
        on_bad_row=on_bad_row,
        settings=settings or (),
    )
    result = run_recipe(recipe, out=out, progress=progress, processes=processes, overwrite=overwrite, where="build")
    if is_main():
        echo_result(result, as_json=as_json)


def train_expert(
    recipe: opt.RecipePath,
    axis: Annotated[str, Option(metavar="NAME", help="Axis of the recipe.")],
    out: Annotated[Path, Option(metavar="DIR", help="Folder; the adapter is experts/NAME in it.")],
    settings: opt.Settings = None,
    progress: opt.Progress = True,
    processes: opt.Processes = None,
) -> None:
    """Train the expert of one axis of a recipe and print its folder, a plain PEFT adapter.

    `mocae run` of the same recipe into the same folder goes on with it, so experts can be trained one by one.
    The expert of a finished run is not replaced by another.

    [bold]mocae train-expert pocket --axis honesty --out out/pocket[/bold]

    Several processes or machines share it as they share a run, see `mocae run --help`.
    """
    from mocae.config import load_recipe
    from mocae.distributed import is_main
    from mocae.pipelines.run import train_expert as train

    loaded = load_recipe(recipe, settings or ())
    folder = train(loaded, axis=axis, out=out, progress=progress, processes=processes, where=str(recipe))
    if is_main():
        echo(folder)
