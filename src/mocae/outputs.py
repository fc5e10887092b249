"""Folders and files that commands write: theirs are told from everybody else's, which are never written over."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mocae.errors import ArtifactError
from mocae.files import Record, digest, read_record, write_whole

__all__ = ["MADE", "Kind", "claim", "refuse_file", "refuse_foreign", "writing"]

Kind = Literal["run", "eval", "ablate", "judge run", "judge train"]
MADE = "made by mocae"
"""Words in every single file that a command writes."""
_MARK = ".mocae.json"
_EARLIER: dict[Kind, tuple[str, ...]] = {
    "eval": ("eval.json",),
    "ablate": ("ablation.json", ".stages"),
    "judge train": ("judge.json",),
    "run": ("manifest.json", "*/stage.json", "*/*/stage.json"),
}
"""What a folder holds that an earlier version wrote, without a mark."""
_SHOWN = 5


class _Mark(Record):
    """`.mocae.json`: which command a folder is of, and the digests of the files it wrote; None while it writes them."""

    kind: Kind
    files: dict[str, str] | None


def refuse_foreign(folder: Path, kind: Kind, names: Collection[str] = ()) -> None:
    """Do nothing where a command may write a folder: it is new, empty, or its own.

    Args:
        folder: where to write.
        kind: the command.
        names: files of the folder that would be replaced.

    Raises:
        ArtifactError: it holds files of somebody else, or of another command, or one of `names` was changed since.
    """
    mark = _mark_of(folder)
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    held = [name for name in held if name not in (".lock", _MARK)]
    if mark is None and held:
        raise ArtifactError(
            f"{folder}: holds files that mocae did not write there ({_few(held)}); give a new or an empty folder"
        )
    if mark is not None and mark.kind != kind and held:
        raise ArtifactError(f"{folder}: holds what `mocae {mark.kind}` made; give another folder")
    if mark is None or mark.files is None:
        return
    files = mark.files
    changed = [
        name for name in names if (folder / name).exists() and files.get(name) != digest(folder / name, links=True)
    ]
    if changed:
        raise ArtifactError(
            f"{folder}: mocae would write over {_few(changed)}, which it did not write or which was changed since; "
            "move it away, or give another folder"
        )


def claim(folder: Path, kind: Kind, names: Collection[str] = ()) -> None:
    """Mark a folder as a command's own, after `refuse_foreign`."""
    if not (folder / _MARK).is_file() or read_record(folder / _MARK, _Mark).kind != kind:
        _note(folder, kind, names)


@contextmanager
def writing(folder: Path, kind: Kind, names: Collection[str]) -> Iterator[None]:
    """Return a context in which a command writes these files of its folder; a kill leaves them its own."""
    _note(folder, kind, None)
    yield
    _note(folder, kind, names)


def refuse_file(path: Path, flag: str) -> None:
    """Do nothing where a file may be written: it is not there, or a command of ours wrote it.

    Raises:
        ArtifactError: it is somebody else's.
    """
    if path.exists() and (not path.is_file() or MADE.encode() not in path.read_bytes()):
        raise ArtifactError(f"{flag} {path}: is there and mocae did not write it; give another name, or move it away")


def _mark_of(folder: Path) -> _Mark | None:
    if (folder / _MARK).is_file():
        return read_record(folder / _MARK, _Mark, remedy="remove it, or give another folder")
    for kind, patterns in _EARLIER.items():
        if any(_is_ours(path) for pattern in patterns for path in folder.glob(pattern)):
            return _Mark(kind=kind, files=None)
    return None


def _is_ours(path: Path) -> bool:
    """Return whether something that is called as ours is ours: other software has manifests too."""
    words = {"manifest.json": '"fingerprint"', "stage.json": '"seal"', "ablation.json": '"seeds"'}
    words |= {"eval.json": '"parts"', "judge.json": '"schema_version"'}
    with suppress(OSError, UnicodeDecodeError):
        return path.name not in words or words[path.name] in path.read_text(encoding="utf-8")
    return False


def _note(folder: Path, kind: Kind, names: Collection[str] | None) -> None:
    files = None if names is None else {n: digest(folder / n, links=True) for n in names if (folder / n).is_file()}
    write_whole(folder / _MARK, json.dumps(_Mark(kind=kind, files=files).model_dump(), indent=1) + "\n")


def _few(names: Collection[str]) -> str:
    some = list(names)[:_SHOWN]
    return ", ".join(some) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
