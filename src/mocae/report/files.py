"""Writing a text file so that readers see the old one or the new one, never half of one."""

from __future__ import annotations

import os
from pathlib import Path

from mocae.errors import ArtifactError

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> Path:
    """Return `path` after putting `text` there as UTF-8 in one step.

    Raises:
        ArtifactError: the folder does not exist, or the file cannot be written (a full disk, a read-only folder).
    """
    if not path.parent.is_dir():
        raise ArtifactError(f"{path.parent}: no such folder; {path.name} is written into an existing artifact folder")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A model may write half a surrogate pair; one bad letter must not cost the report.
        unfinished.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        os.replace(unfinished, path)
    except OSError as error:
        raise ArtifactError(
            f"{path}: could not be written ({error.strerror or error}); free space or choose another folder"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path
