"""Arguments that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mocae.errors import ConfigError, unknown_name

__all__ = [
    "LARGEST_SEED",
    "AllowHost",
    "AllowOrigin",
    "ApiKeys",
    "AsJson",
    "Host",
    "NoKeys",
    "Overwrite",
    "Processes",
    "RecipePath",
    "Settings",
    "Threads",
    "factors",
    "fitting_threads",
    "one_of",
    "words",
]

LARGEST_SEED = 2**32 - 1
"""As in a recipe (`mocae.config`), which is not imported to print a help text."""

Choice = TypeVar("Choice", bound=StrEnum)

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="Recipe file, or the name of one that ships: `mocae ls recipes`.")
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe, e.g. experts.r=16 or axes.honesty.train.limit=100. Can be repeated.",
    ),
]

Processes = Annotated[
    int | None,
    typer.Option("--processes", min=1, metavar="N", help="Refuse to run with another number of processes."),
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the finished run of another recipe in the folder.")
]

Host = Annotated[str, typer.Option("--host", help="Address; other than loopback needs API keys.")]

ApiKeys = Annotated[
    Path | None,
    typer.Option("--api-keys", metavar="FILE", help="Keys clients must send, one a line; also MOCAE_API_KEYS=a,b."),
]

NoKeys = Annotated[bool, typer.Option("--no-keys", help="Let other machines in without keys.")]

AllowHost = Annotated[
    list[str] | None, typer.Option("--allow-host", metavar="NAME", help="Another name of this server.")
]

AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="ORIGIN",
        help="Let pages of this address ask from a browser, as http://localhost:3000; can be repeated.",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def fitting_threads(count: int | None) -> int | None:
    """Return what `--threads` was given.

    Raises:
        ConfigError: more threads than the machine has processors, which only makes it slower until it breaks.
    """
    processors = os.cpu_count() or 1
    if count is not None and count > processors:
        raise ConfigError(f"--threads {count}: this machine has {processors} processors; give at most that many")
    return count


Threads = Annotated[
    int | None, typer.Option("--threads", min=1, callback=fitting_threads, help="Threads of the processor; else all.")
]


def one_of(choices: type[Choice], what: str) -> Callable[[str], Choice]:
    """Return the parser of an argument that takes one of these words.

    It raises ConfigError for another word, with the nearest one.
    """

    def parse(word: str) -> Choice:
        try:
            return choices(word)
        except ValueError:
            raise ConfigError(unknown_name(what, word, map(str, choices))) from None

    return parse


def words(text: str | None, flag: str) -> list[str] | None:
    """Return the comma-separated words of a flag, None when it was not given.

    Raises:
        ConfigError: a word is empty.
    """
    if text is None:
        return None
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise ConfigError(
            f"{flag} {text!r}: an empty name. Accepted: names with commas between, as in {flag} base,alignx"
        )
    return found


def factors(items: list[str] | None, flag: str) -> dict[str, float] | None:
    """Return `name=number` items as a mapping, None when there are none.

    Raises:
        ConfigError: an item is not of that form, or a name is there twice.
    """
    found: dict[str, float] = {}
    for item in items or []:
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not name or value != value or abs(value) == float("inf"):
            raise ConfigError(f"{flag} {item!r}: not a factor. Accepted: axis=number, as in {flag} honesty=2")
        if name in found:
            raise ConfigError(f"{flag} {item!r}: {name!r} is there twice; give each axis once")
        found[name] = value
    return found or None
