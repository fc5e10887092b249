"""What an artifact was made from: identities of the prompts it was trained and calibrated on, never their text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mocae.files import Record, read_record, write_whole

__all__ = ["Seen", "read_seen", "write_seen"]

_FILE = "seen.json"


class _Seen(Record):
    prompts: list[str]
    unknown: list[str]


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
    if not path.exists():
        return None
    record = read_record(path, _Seen)
    return Seen(frozenset(record.prompts), tuple(record.unknown))
