"""`mocae data`: fetch published data sets, and say what of them is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option, Typer, echo

from mocae.cli.options import AsJson, echo_json
from mocae.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mocae.data.published import DataSet, Found

__all__ = ["data"]

data = Typer(name="data", no_args_is_help=True, help="Fetch published data sets for the recipes.")

Names = Annotated[
    list[str] | None,
    Argument(metavar="NAME", help="alpaca, beavertails, truthfulqa, xstest, selfaware, ifeval; none: all."),
]
Out = Annotated[Path, Option(metavar="DIR", help="The data root of recipes, MOCAE_DATA_ROOT.")]


@data.command()
def get(out: Out, names: Names = None, as_json: AsJson = False) -> None:
    """Fetch data sets from where they are published, check them, and write them where the recipes read them.

    [bold]mocae data get alpaca beavertails truthfulqa xstest --out data[/bold]

    Without a network it says which file to put where; the same command goes on from there. Files that are there stay.
    """
    from mocae.data.published import get_data

    sets = _sets(names)
    for name, entry in sets.items():
        echo(f"{name}: licence {entry.licence}. {entry.note}".rstrip(), err=True)
    _tell(get_data(sets, out), out, as_json=as_json)


@data.command()
def check(out: Out, names: Names = None, as_json: AsJson = False) -> None:
    """Say which files of the data sets are there, missing, or changed since they were written.

    [bold]mocae data check --out data[/bold]

    Exit code 1 where one is missing or changed.
    """
    from mocae.data.published import check_data

    found = check_data(_sets(names), out)
    _tell(found, out, as_json=as_json)
    if any(one.state in ("missing", "changed") for one in found):
        raise Exit(1)


def _sets(names: Sequence[str] | None) -> Mapping[str, DataSet]:
    from mocae.data.published import published_sets

    known = published_sets()
    for name in names or ():
        if name not in known:
            raise ConfigError(f"data: {unknown_name('data set', name, known)}")
    return {name: known[name] for name in names or known}


def _tell(found: Sequence[Found], out: Path, *, as_json: bool) -> None:
    if as_json:
        echo_json([{"path": str(out / one.file.to), "state": one.state, "url": one.file.urls[0]} for one in found])
        return
    words = {
        "fetched": "there, as fetched",
        "own": "there, not fetched by mocae",
        "changed": "changed since it was written",
    }
    for one in found:
        missing = f"missing; mocae data get, or put {one.file.urls[0]} at {out / one.file.places[0]} and run it"
        echo(f"{out / one.file.to}: {words.get(one.state, missing)}")
