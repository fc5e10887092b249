"""What a finished stage says of itself, `stage.json`: its key, its files and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mocae.errors import ArtifactError
from mocae.files import Inside, Record, check_record, digest, inside, plain_files, read_json

__all__ = ["RECORD", "VERSION", "StageRecord", "is_whole", "key_of", "refuse_changed"]

RECORD = "stage.json"
VERSION = 1
_CLOCKED = "training.json"
"""Says how long a training took: of two stages made alike the one file that differs."""
_Seconds = Annotated[float, Field(ge=0)]
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Clock(Record):
    seconds: _Seconds
    cpu_seconds: _Seconds


class StageRecord(Record):
    """`stage.json`."""

    version: int
    stage: str
    key: _Hash
    files: dict[Inside, _Hash]
    seal: _Hash
    took: _Clock | None = None

    @property
    def made(self) -> str:
        """What was made: a hash of the inputs and of every file, so that other bits make another stage."""
        return key_of({"key": self.key, "files": {n: d for n, d in self.files.items() if n != _CLOCKED}})


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return the key of a stage: SHA-256 of its inputs as canonical JSON.

    >>> key_of({"b": 1, "a": [2]}) == key_of({"a": [2], "b": 1})
    True
    """
    text = json.dumps({"version": VERSION, **inputs}, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def is_whole(folder: Path, key: str) -> bool:
    """Return whether a folder holds the finished stage of this key, every file as it was when it was finished."""
    try:
        record = _sealed(folder)
        return record.key == key and next(_changed(folder, record), None) is None
    except ArtifactError:
        return False


def refuse_changed(folder: Path, key: str | None = None) -> None:
    """Refuse a finished stage that is not as it was finished, or holds anything but plain files.

    Args:
        folder: of the stage.
        key: of what it has to be; None: any, and a folder without a record is let through.

    Raises:
        ArtifactError: the record or a file it lists is missing or has changed, or it is the record of another stage.
    """
    plain_files(folder)
    if key is None and not (folder / RECORD).exists():
        return
    try:
        record = _sealed(folder)
    except ArtifactError as error:
        raise _is_changed(folder, RECORD) from error
    # Manifests of before what was made had a key of its own name the key of the inputs.
    if key not in (None, record.made, record.key):
        raise ArtifactError(
            f"{folder}: was made anew, with other settings, after the run was finished; the rest of the folder belongs "
            "to the one before. Run the recipe again into this folder, which brings them together"
        )
    for name in _changed(folder, record):
        raise _is_changed(folder, name)


def _is_changed(folder: Path, name: str) -> ArtifactError:
    state = "has changed" if (folder / name).exists() else "is missing"
    return ArtifactError(
        f"{folder / name}: {state} since the run finished it; copy the folder again, or run the recipe again, which "
        "makes this part anew"
    )


def _sealed(folder: Path) -> StageRecord:
    """Return the record of a stage.

    Raises:
        ArtifactError: it is not as it was written, or no record.
    """
    values = read_json(folder / RECORD)
    record = check_record(StageRecord, values, str(folder / RECORD))
    del values["seal"]
    if record.version != VERSION or key_of(values) != record.seal:
        raise ArtifactError(f"{folder / RECORD}: is not as it was written")
    return record


def _changed(folder: Path, record: StageRecord) -> Iterator[str]:
    """Yield the files of a stage that are not as its record says."""
    for name, expected in record.files.items():
        try:
            same = digest(inside(folder, name)) == expected
        except ArtifactError:
            same = False
        if not same:
            yield name
