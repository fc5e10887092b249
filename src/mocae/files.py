"""Files: a text written so that readers see the old one or the new one, never half of one; JSON nobody vouches for."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from mocae.errors import ArtifactError

__all__ = ["make_readable", "parse_json", "write_whole"]


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, in UTF-8 where it is bytes.

    Raises:
        ValueError: it is no JSON, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def make_readable(folder: Path) -> None:
    """Give every file below a folder made just now the mode the umask allows, which is that of the folder.

    safetensors writes through a temporary file, and what it leaves only its owner may read.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(folder.stat().st_mode & 0o666)


def write_whole(path: Path, text: str) -> Path:
    """Return `path` after putting `text` there as UTF-8 in one step, safe against a kill and a loss of power.

    Raises:
        ArtifactError: the folder does not exist, or the file cannot be written (a full disk, a read-only folder); the
            old text stays.
    """
    if not path.parent.is_dir():
        raise ArtifactError(f"{path.parent}: no such folder; {path.name} is written into an existing folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # A model may write half a surrogate pair; one bad letter must not cost the file.
        with partial.open("w", encoding="utf-8", errors="replace", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ArtifactError(
            f"{path}: could not be written ({error.strerror or error}); free space or choose another folder, and the "
            "same command goes on with what is finished"
        ) from error
    return path
