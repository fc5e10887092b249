"""What an artifact was made from: identities of the prompts it was trained and calibrated on, never their text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mocae.errors import ArtifactError
from mocae.files import parse_json, write_whole

__all__ = ["Seen", "read_seen", "write_seen"]

_FILE = "seen.json"


class Seen(NamedTuple):
    """Prompts that say nothing any more about how well an artifact does.

    Attributes:
        prompts: their identities (`mocae.types.prompt_id`).
        unknown: axes whose experts were brought along, so that what they were trained on is not known.
    """

    prompts: frozenset[str]
    unknown: tuple[str, ...]


def write_seen(root: Path, prompts: Iterable[str], *, unknown: Sequence[str]) -> None:
    """Write the identities of prompts into an artifact's folder."""
    told = {"schema": 1, "prompts": sorted(set(prompts)), "unknown": list(unknown)}
    write_whole(root / _FILE, json.dumps(told, indent=0) + "\n")


def read_seen(root: Path) -> Seen | None:
    """Return what an artifact was made from; None for one that does not say.

    Raises:
        ArtifactError: its list is damaged.
    """
    path = root / _FILE
    if not path.is_file():
        return None
    try:
        told = parse_json(path.read_bytes())
        prompts, unknown = told["prompts"], told["unknown"]
        if not all(isinstance(name, str) for name in (*prompts, *unknown)):
            raise TypeError("a name that is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: damaged ({error!r}); run the recipe again") from error
    return Seen(frozenset(prompts), tuple(unknown))
