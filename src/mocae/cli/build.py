"""`mocae build` and `mocae train-expert`: an artifact from adapters that are there, and one adapter of a recipe."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mocae.cli.options import LARGEST_SEED, AsJson, Overwrite, Processes, RecipePath, Settings
from mocae.errors import ConfigError

__all__ = ["OnBadRow", "build", "train_expert"]


class OnBadRow(StrEnum):
    """What a row that is damaged or too long does."""

    ERROR = "error"
    SKIP = "skip"


def build(
    base: Annotated[str, typer.Option("--base", metavar="ID_OR_PATH", help="Base model of the adapters.")],
    expert: Annotated[
        list[str],
        typer.Option("--expert", metavar="NAME=ID_OR_PATH", help="A PEFT LoRA adapter. Once for each expert."),
    ],
    calibration: Annotated[
        Path, typer.Option("--calibration", metavar="FILE", help="Prompts with axis, probe and facts, see above.")
    ],
    judge: Annotated[
        list[str],
        typer.Option("--judge", metavar="NAME", help="What decides, or NAME:{JSON options}; repeatable."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the artifact.")],
    prompt_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="How prompts are written, see `mocae ls formats`.")
    ] = "plain",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 64,
    held_out: Annotated[float, typer.Option("--held-out", help="Share of the prompts the result is tested on.")] = 0.25,
    seed: Annotated[int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Of everything that is drawn.")] = 0,
    on_bad_row: Annotated[
        OnBadRow, typer.Option("--on-bad-row", help="What a row that is damaged or too long does.")
    ] = OnBadRow.ERROR,
    settings: Settings = None,
    as_json: AsJson = False,
    progress: Annotated[bool, typer.Option(help="Show progress on stderr.")] = True,
    processes: Processes = None,
    overwrite: Overwrite = False,
) -> None:
    """Make an artifact from LoRA adapters you have: no training, only features, judged answers and a router.

    Adapters may differ in rank, alpha, target modules and rsLoRA. Each line of FILE is a prompt:

    {"prompt": "...", "axis": "honesty", "probe": "question", "facts": {...}}

    axis is the expert whose kind of prompt it is; probe says which judgements count (`mocae ls probes`).

    [bold]mocae build --base meta-llama/Llama-2-7b-hf --expert helpfulness=ada/alpaca-lora --expert honesty=./honest
    --calibration prompts.jsonl --judge reference-truth --out out/mine[/bold]
    """
    from mocae.cli.run_table import print_result
    from mocae.distributed import is_main
    from mocae.pipelines.build import build_recipe, parse_judge
    from mocae.pipelines.check import validate as check
    from mocae.pipelines.run import run as run_recipe

    recipe = build_recipe(
        base=base,
        experts=_experts(expert),
        calibration=calibration,
        judges=[parse_judge(text) for text in judge],
        prompt_format=prompt_format,
        max_new_tokens=max_new_tokens,
        held_out=held_out,
        seed=seed,
        on_bad_row=on_bad_row.value,
        settings=settings or (),
    )
    check(recipe, where="build")
    result = run_recipe(recipe, out=out, progress=progress, processes=processes, overwrite=overwrite)
    if not is_main():
        return
    if as_json:
        typer.echo(result.report_path.read_text(encoding="utf-8"))
    else:
        print_result(result.report, result.html_path)


def train_expert(
    recipe: RecipePath,
    axis: Annotated[str, typer.Option("--axis", metavar="NAME", help="Axis of the recipe.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder; the adapter is experts/NAME in it.")],
    settings: Settings = None,
    progress: Annotated[bool, typer.Option(help="Show progress on stderr.")] = True,
    processes: Processes = None,
) -> None:
    """Train the expert of one axis of a recipe and print its folder, a plain PEFT adapter.

    `mocae run` of the same recipe into the same folder goes on with it, so experts can be trained one by one.
    The expert of a finished run is not replaced by another.

    [bold]mocae train-expert pocket --axis honesty --out out/pocket[/bold]

    Several processes or machines share it as they share a run, see `mocae run --help`.
    """
    from mocae.config import load_recipe
    from mocae.distributed import is_main
    from mocae.pipelines.check import validate as check
    from mocae.pipelines.run import train_expert as train

    loaded = load_recipe(recipe, settings or ())
    check(loaded, where=str(recipe))
    folder = train(loaded, axis=axis, out=out, progress=progress, processes=processes)
    if is_main():
        typer.echo(folder)


def _experts(items: list[str]) -> dict[str, str]:
    """Return `name=adapter` items as a mapping.

    Raises:
        ConfigError: an item is not of that form, or a name is there twice.
    """
    found: dict[str, str] = {}
    for item in items:
        name, equals, adapter = (part.strip() for part in item.partition("="))
        if not (name and equals and adapter):
            raise ConfigError(f"--expert {item!r}: expected name=adapter, as in --expert honesty=path/to/adapter")
        if name in found:
            raise ConfigError(f"--expert {item!r}: {name!r} is there twice; give each expert a name of its own")
        found[name] = adapter
    return found
