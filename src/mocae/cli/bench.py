"""`mocae bench`: what do experts cost, beside the base model and its rivals?"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from mocae.cli.options import Progress, Threads, words
from mocae.errors import ConfigError

if TYPE_CHECKING:
    from mocae.bench import Benchmark

__all__ = ["bench"]


def bench(
    config: Annotated[str, Option(metavar="NAME", help="tiny, 97m, 7b (random weights), or a model's folder.")] = "97m",
    json_file: Annotated[Path | None, Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    plot: Annotated[Path | None, Option(metavar="FILE", help="Draw the figures (.svg or .png).")] = None,
    systems: Annotated[str | None, Option(metavar="A,B", help="Measure only these; the base always is.")] = None,
    batches: Annotated[str | None, Option(metavar="N,N", help="Batch sizes; else those of the config.")] = None,
    prompt_tokens: Annotated[int | None, Option(min=8, help="Tokens read; else those of the config (64).")] = None,
    new_tokens: Annotated[int | None, Option(min=2, help="Tokens written; else those of the config (48).")] = None,
    repeats: Annotated[int, Option(min=1, help="Rounds; the medians over them are printed.")] = 5,
    dtype: Annotated[str, Option(help="bf16, fp32, fp16 or auto.")] = "bf16",
    threads: Threads = None,
    clock: Annotated[str, Option(help="wall, or cpu: processor time, for one thread on a busy machine.")] = "wall",
    progress: Progress = True,
) -> None:
    """Measure speed and memory of the experts beside their rivals, as ratios to the base model of the same run.

    [bold]mocae bench --config 97m --json bench.json --plot bench.svg[/bold]

    [bold]mocae bench --config tiny --systems stacked,merged --repeats 3[/bold]
    """
    import torch

    from mocae.bench import load_shape, run_bench
    from mocae.progress import visible

    _check_files(json_file, plot)
    shape, sizes, names = load_shape(config), _sizes(batches), words(systems, "--systems")
    shape = replace(
        shape, prompt_tokens=prompt_tokens or shape.prompt_tokens, new_tokens=new_tokens or shape.new_tokens
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with visible(progress):
            result = run_bench(shape, systems=names, batches=sizes, repeats=repeats, dtype=dtype, clock=clock)
    finally:
        torch.set_num_threads(before)
    _print(result)
    if json_file is not None:
        json_file.write_text(result.to_json(), encoding="utf-8")
    if plot is not None:
        from mocae.bench.plot import draw

        draw(result, plot)


def _check_files(json_file: Path | None, plot: Path | None) -> None:
    """Refuse files that cannot be written once everything is measured, or that are somebody else's."""
    from mocae.outputs import refuse_file

    for flag, path in (("--json", json_file), ("--plot", plot)):
        if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
            raise ConfigError(f"{flag} {str(path)!r}: cannot be written; give a file in a folder that is there")
        if path is not None:
            refuse_file(path, flag)
    if plot is not None:
        from mocae.bench.plot import check_format

        check_format(plot)


def _sizes(text: str | None) -> list[int] | None:
    sizes = words(text, "--batches")
    if sizes is not None and not all(word.isdecimal() and int(word) for word in sizes):
        raise ConfigError(f"--batches {text!r}: not batch sizes. Accepted: numbers from 1 up, as in --batches 1,8")
    return None if sizes is None else [int(word) for word in sizes]


def _print(result: Benchmark) -> None:
    from rich.console import Console
    from rich.table import Table

    from mocae.cli.tables import numbers, print_fitted

    out, how, where = Console(), result.settings, result.hardware
    heads = ("batch", "decode", "±", "first", "total", "memory", "without\nexperts", "tokens/s", "floor")
    table = Table("system", *numbers(*heads), title=f"{how['config']}, base = 1", padding=(0, 0, 0, 1))
    for i, row in enumerate(result.rows):
        ratios = (row.decode_ratio, row.spread, row.ttft_ratio, row.total_ratio, row.memory_ratio)
        table.add_row(
            row.system,
            str(row.batch),
            *(f"{ratio:.2f}" for ratio in (*ratios, row.memory_beyond_experts_ratio)),
            f"{row.tokens_per_second:.1f}",
            f"{row.floor_ratio:.1f}",
            end_section=row is result.rows[-1] or result.rows[i + 1].batch != row.batch,
        )
    print_fitted(out, table, elsewhere="--json writes them")
    out.print(
        "decode: tokens after the first; ±: its quartile distance; first: time to the first token; memory: peak, and "
        "without the experts' own weights; floor: multiple of the time it takes to read the weights",
        highlight=False,
    )
    for note in dict.fromkeys(f"{row.system}: {row.note}" for row in result.rows if row.note):
        out.print(note, highlight=False)
    out.print(
        f"{where['device']}, {where['threads']} threads, {how['clock']} time, torch {where['torch']}, "
        f"{how['dtype']}, copy {float(where['copy_bytes_per_second']) / 1e9:.1f} GB/s, load {where['load_average']}; "
        f"{how['prompt_tokens']} + {how['new_tokens']} tokens, {how['experts']} experts of rank {how['r']}",
        highlight=False,
    )
