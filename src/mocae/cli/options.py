"""Arguments that several commands share, and how their words are read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, echo

from mocae.errors import ConfigError, unknown_name

__all__ = [
    "LARGEST_SEED",
    "Address",
    "AllowHost",
    "AllowOrigin",
    "ApiKeys",
    "Artifact",
    "AsJson",
    "BaseFolder",
    "BaseModel",
    "Device",
    "Grace",
    "MaxBody",
    "NoKeys",
    "Overwrite",
    "Port",
    "Processes",
    "Progress",
    "RecipePath",
    "Settings",
    "Threads",
    "echo_json",
    "fitting_threads",
    "numbers",
    "one_of",
    "pairs",
    "words",
]

LARGEST_SEED = 2**32 - 1
"""As in a recipe (`mocae.config`), which is not imported to print a help text."""


def fitting_threads(count: int | None) -> int | None:
    """Return what `--threads` was given.

    Raises:
        ConfigError: more threads than the machine has processors, which only makes it slower until it breaks.
    """
    processors = os.cpu_count() or 1
    if count is not None and count > processors:
        raise ConfigError(f"--threads {count}: this machine has {processors} processors; give at most that many")
    return count


Address = Annotated[str, Option("--host", help="Address; other than loopback needs API keys.")]
AllowHost = Annotated[list[str] | None, Option(metavar="NAME", help="Another name of this server.")]
AllowOrigin = Annotated[
    list[str] | None,
    Option(
        metavar="ORIGIN",
        help="Let pages of this address ask from a browser, as http://localhost:3000; can be repeated.",
    ),
]
ApiKeys = Annotated[
    Path | None, Option(metavar="FILE", help="Keys clients must send, one a line; also MOCAE_API_KEYS=a,b.")
]
Artifact = Annotated[Path, Argument(metavar="DIR", help="Folder a run has written.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of tables.")]
BaseFolder = Annotated[str | None, Option(metavar="DIR", help="Where the base model lies now, if it moved.")]
BaseModel = Annotated[str | None, Option(metavar="ID_OR_PATH", help="Where the base model lies now.")]
Device = Annotated[str | None, Option(help="cpu, cuda, ...; else an accelerator if any.")]
Grace = Annotated[float, Option(metavar="S", min=0, help="Time to finish when stopped.")]
MaxBody = Annotated[int, Option(metavar="BYTES", min=1024, help="Largest request.")]
NoKeys = Annotated[bool, Option("--no-keys", help="Let other machines in without keys.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace the finished run in the folder by another.")]
Port = Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")]
Processes = Annotated[int | None, Option(min=1, metavar="N", help="Refuse to run with another number of processes.")]
Progress = Annotated[bool, Option(help="Show progress on stderr.")]
RecipePath = Annotated[
    Path, Argument(metavar="RECIPE", help="Recipe file, or the name of one that ships: `mocae ls recipes`.")
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one key of the recipe, e.g. experts.r=16 or axes.honesty.train.limit=100. Can be repeated.",
    ),
]
Threads = Annotated[int | None, Option(min=1, callback=fitting_threads, help="Threads of the processor; else all.")]


def echo_json(value: Any) -> None:
    """Print a value as JSON."""
    echo(json.dumps(value, indent=2, ensure_ascii=False))


def one_of(choices: Sequence[str], what: str) -> Callable[[str], str]:
    """Return the parser of an argument that takes one of these words.

    It raises ConfigError for another word, with the nearest one.
    """

    def parse(word: str) -> str:
        if word not in choices:
            raise ConfigError(unknown_name(what, word, choices))
        return word

    return parse


def words(text: str | None, flag: str) -> list[str] | None:
    """Return the comma-separated words of a flag, None when it was not given.

    Raises:
        ConfigError: a word is empty.
    """
    if text is None:
        return None
    parts = [word.strip() for word in text.split(",")]
    if not all(parts):
        raise ConfigError(
            f"{flag} {text!r}: an empty name. Accepted: names with commas between, as in {flag} base,alignx"
        )
    return parts


def pairs(items: list[str] | None, flag: str, *, form: str, example: str) -> dict[str, str]:
    """Return `name=value` items as a mapping.

    Args:
        items: words of the command line.
        flag: in front of each of them.
        form: what an item looks like, for messages.
        example: an item that is right.

    Raises:
        ConfigError: an item is not of that form, or a name is there twice.
    """
    values: dict[str, str] = {}
    for item in items or ():
        name, _, value = (part.strip() for part in item.partition("="))
        if not name or not value:
            raise ConfigError(f"{flag} {item!r}: not of the form {form}, as in {flag} {example}")
        if name in values:
            raise ConfigError(f"{flag} {item!r}: {name!r} is there twice; give each once")
        values[name] = value
    return values


def numbers(items: list[str] | None, flag: str) -> dict[str, float] | None:
    """Return `name=number` items as a mapping, None when there are none.

    Raises:
        ConfigError: an item is not of that form, or a name is there twice.
    """
    form, example = "axis=number", "honesty=0.5"
    values: dict[str, float] = {}
    for name, text in pairs(items, flag, form=form, example=example).items():
        try:
            values[name] = float(text)
        except ValueError:
            values[name] = math.nan
        if not math.isfinite(values[name]):
            raise ConfigError(f"{flag} '{name}={text}': not of the form {form}, as in {flag} {example}")
    return values or None
