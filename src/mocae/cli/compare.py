"""`mocae compare`: two evaluations, prompt by prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from mocae.cli.options import LARGEST_SEED, AsJson, echo_json

if TYPE_CHECKING:
    from mocae.pipelines.compare import Comparison
    from mocae.types import Estimate

__all__ = ["compare"]


def compare(
    first: Annotated[
        str, Argument(metavar="A", help="Folder of an evaluation or run; FOLDER:SYSTEM for one of several.")
    ],
    second: Annotated[str, Argument(metavar="B", help="What it is compared with.")],
    out: Annotated[Path | None, Option(metavar="FILE", help="Page to write, as comparison.html.")] = None,
    seed: Annotated[int, Option(min=0, max=LARGEST_SEED, help="Of the resampling.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluations on the prompts they share: A minus B, paired, with intervals.

    [bold]mocae compare out/eval-base out/eval-tuned --out comparison.html[/bold]

    [bold]mocae compare out/pocket:alignx out/pocket:base --json[/bold]
    """
    from mocae.outputs import refuse_file
    from mocae.pipelines.compare import compare as run_compare

    if out is not None:
        refuse_file(out, "--out")
    comparison = run_compare(first, second, seed=seed)
    if out is not None:
        from mocae.files import write_whole
        from mocae.report import comparison_page

        write_whole(out, comparison_page(comparison.as_json()))
    if as_json:
        echo_json(comparison.as_json())
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    from mocae.cli.tables import numbers, print_fitted
    from mocae.metrics import ARROWS

    table = Table("percent", *numbers(comparison.first, comparison.second, "difference, points", "n"))
    for row in comparison.rows:
        name = f"{row.name} {ARROWS[row.higher_is_better]}".rstrip()
        cells = ("-" if v is None else f"{100 * v:.1f}" for v in (row.first, row.second))
        table.add_row(name, *cells, _difference(row.difference), str(row.difference.n))
    out = Console()
    print_fitted(out, table, elsewhere="--json has them")
    for letter, name, place in zip("AB", (comparison.first, comparison.second), comparison.places, strict=True):
        out.print(f"{letter}, {name}: {place}", soft_wrap=True, highlight=False, markup=False)
    shared, first, second = comparison.n_shared, comparison.n_only_first, comparison.n_only_second
    out.print(f"{shared} shared prompts; {first} only in A, {second} only in B")
    for note in comparison.notes:
        out.print(f"note: {note}", soft_wrap=True)


def _difference(estimate: Estimate) -> str:
    """Return a difference of rates in points with its interval.

    >>> from mocae.types import Estimate
    >>> _difference(Estimate(0.05, -0.01, 0.11, 100))
    '+5.0 [-1.0, +11.0]'
    """
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:+.1f}"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
