"""`mocae score`: a metric of a file made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option, echo

from mocae.cli.options import AsJson, echo_json, pairs

if TYPE_CHECKING:
    from mocae.pipelines.scoring import Scored

__all__ = ["score"]


def score(
    metric: Annotated[
        str,
        Argument(
            metavar="METRIC",
            help="What is computed, as unsafe_rate or cohens_kappa; `mocae ls metrics` lists all with their columns.",
        ),
    ],
    file: Annotated[Path, Argument(metavar="FILE", help="JSON, JSONL, CSV or Parquet, also .xz or .gz.")],
    as_json: AsJson = False,
    column: Annotated[
        list[str] | None, Option(metavar="NAME=COLUMN", help="Read a value from another column. Can be repeated.")
    ] = None,
    where: Annotated[
        list[str] | None, Option(metavar="COLUMN=TEXT", help="Keep rows that match; != and * work. Can be repeated.")
    ] = None,
    bins: Annotated[int, Option(min=1, help="Bins of calibration errors.")] = 15,
    binning: Annotated[Literal["width", "mass"], Option(help="Bins of equal width or equal mass.")] = "width",
) -> None:
    """Compute a metric of a file: the `samples.jsonl` of any command, annotations, probabilities, verdicts.

    [bold]mocae score unsafe_rate out/pocket/samples.jsonl --where system=alignx[/bold]

    [bold]mocae score win_rate annotations.json.xz[/bold]

    [bold]mocae score ece probabilities.jsonl --column prob=confidence --json[/bold]
    """
    from mocae.pipelines.scoring import score_file

    scored = score_file(
        metric,
        file,
        columns=pairs(column, "--column", form="NAME=COLUMN", example="prob=p"),
        where=where or (),
        n_bins=bins,
        binning=binning,
    )
    if as_json:
        echo_json({"metric": metric, "file": file.name, **asdict(scored)})
    else:
        for line in _lines(scored):
            echo(line)


def _lines(scored: Scored) -> list[str]:
    """Return one line a number, rates in percent, and what the numbers rest on."""
    shown: Mapping[str, Any] = {**scored.values, "scored": scored.n, "unscored": scored.n_unscored}
    width = max(map(len, shown))
    lines = [f"{name.replace('_', ' '):<{width}}  {_value(name, value)}" for name, value in shown.items()]
    for name, table in scored.tables.items():
        if name == "by_category":
            lines += [f"  {kind}: {_value('rate', rate['value'])} of {rate['n']}" for kind, rate in table.items()]
    return [*lines, *(f"note: {note}" for note in scored.notes)]


def _value(name: str, value: float | int | None) -> str:
    """Return a number as it is printed.

    >>> _value("win_rate", 0.8171), _value("n_wins", 642), _value("auroc", 0.75), _value("win_rate", None)
    ('81.71 %', '642', '0.7500', '-')
    """
    from mocae.metrics import metric

    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{100 * value:.2f} %" if metric(name).unit == "percent" else f"{value:.4f}"
