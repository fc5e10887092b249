"""The one way to read files nobody vouches for, and the one way to write a text whole."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from mocae.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Inside",
    "Record",
    "check_record",
    "digest",
    "inside",
    "make_readable",
    "parse_json",
    "plain_files",
    "read_json",
    "read_lines",
    "read_plain",
    "read_record",
    "read_tensors",
    "write_whole",
]

_T = TypeVar("_T")
_MOST_BYTES = 256 << 20  # of a JSON file or a log, and of one line of JSONL
_MOST_FILES = 100_000
_MOST_TENSORS = 100_000
_SETTLED_NS = 100_000_000  # a file younger than that may change again without a new time stamp
_DIGESTS: dict[tuple[int, ...], str] = {}


class Record(BaseModel):
    """A JSON object of a folder: strict types, finite numbers; keys a later version may add are left out."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, in UTF-8 where it is bytes.

    Raises:
        ValueError: it is no JSON, nested deeper than 200, holds a number that is not finite or half a surrogate pair,
            or gives a key twice.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    from_json(data, allow_inf_nan=False)
    return json.loads(data, object_pairs_hook=_unique, parse_float=_finite)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _outside(name: str) -> str | None:
    """Return why a name cannot be that of a file or folder inside another, None where it can."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or "\\" in name or "\0" in name or ".." in parts:
        return "it should be a file or folder inside"
    return "its name is too long" if len(name) > 1024 or max(map(len, parts)) > 200 else None


def _checked_inside(name: str) -> str:
    if problem := _outside(name):
        raise ValueError(problem)
    return name


Inside = Annotated[str, AfterValidator(_checked_inside)]
"""A path, relative with "/", that stays in the folder whose record names it."""


def inside(root: Path, name: str) -> Path:
    """Return `root / name`, to which no absolute path, `..` or link leads out of `root`.

    Raises:
        ArtifactError: one does.
    """
    problem = _outside(name)
    path = root
    for part in () if problem else PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            problem = f"{path} is a link"
    if problem:
        raise ArtifactError(f"{root}: names {name[:80]!r}: {problem}; put a plain file or folder in its place")
    return path


def plain_files(folder: Path) -> list[str]:
    """Return the files below a folder, relative and sorted.

    Raises:
        ArtifactError: there is something else than files and folders: a link, a FIFO, a device; or there is no folder.
    """
    names, todo = [], [folder]
    try:
        while todo:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        names.append(Path(entry.path).relative_to(folder).as_posix())
                    else:
                        kind = "a link" if entry.is_symlink() else "a device, socket or FIFO"
                        raise ArtifactError(f"{entry.path}: {kind}; a folder holds plain files alone, copy it there")
                    if len(names) + len(todo) > _MOST_FILES:
                        raise ArtifactError(f"{folder}: more than {_MOST_FILES} files; that is no folder of ours")
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be read ({error.strerror}); give a folder that can") from error
    return sorted(names)


def _open(path: Path, *, links: bool) -> BufferedReader:
    """Open a plain file; one that is none is refused without being read, so that a FIFO holds nobody up."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    try:
        if not links and path.is_symlink():
            raise ArtifactError(f"{path}: a link; put the file in its place")
        number = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise ArtifactError(f"{path}: no plain file; put the file in its place")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: cannot be read ({reason}); put the file in its place") from error
    return open(number, "rb")


def read_plain(path: Path, *, links: bool = False) -> bytes:
    """Return what is in a plain file; see `read_json`."""
    with _open(path, links=links) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ArtifactError(f"{path}: more than {_MOST_BYTES >> 20} MiB, which no such file has; write it again")
    return data


def read_json(path: Path, *, links: bool = False) -> Any:
    """Return the value of a JSON file.

    Args:
        path: of a plain file.
        links: whether it may be reached over a link, as in a cache of the hub.

    Raises:
        ArtifactError: it is missing, no plain file, larger than 256 MiB, or no JSON (see `parse_json`).
    """
    try:
        return parse_json(read_plain(path, links=links))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged (not JSON: {error}); write it again") from error


def read_record(path: Path, schema: type[_T], *, remedy: str = "run the recipe again", links: bool = False) -> _T:
    """Return a JSON file as its schema says.

    Args:
        path: of the file.
        schema: what it should be: a `Record` or another type pydantic knows.
        remedy: what to do about one that is not.
        links: see `read_json`.

    Raises:
        ArtifactError: see `read_json`; or it is another kind of value, named by its place.
    """
    return check_record(schema, read_json(path, links=links), str(path), remedy=remedy)


def read_lines(path: Path, schema: type[_T], *, remedy: str = "run the recipe again") -> Iterator[_T]:
    """Yield the lines of a JSONL file as their schema says.

    Raises:
        ArtifactError: as `read_record`, with the number of the line.
    """
    with _open(path, links=False) as file:
        for number in range(1, 1 << 62):
            line = file.readline(_MOST_BYTES)
            if not line:
                return
            try:
                value = parse_json(line)
            except ValueError as error:
                raise ArtifactError(f"{path}:{number}: damaged (not JSON: {error}); {remedy}") from error
            yield check_record(schema, value, f"{path}:{number}", remedy=remedy)


def check_record(schema: type[_T], value: Any, place: str, *, remedy: str = "run the recipe again") -> _T:
    """Return a JSON value as its schema says.

    Raises:
        ArtifactError: it is another kind of value; says where, beginning with `place`.
    """
    try:
        return TypeAdapter(schema).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"]) or "the whole"
        raise ArtifactError(f"{place}: damaged ({where}: {first['msg']}); {remedy}") from error


def read_tensors(path: Path, *, links: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Args:
        path: of the file.
        links: see `read_json`.

    Raises:
        ArtifactError: it is missing, no plain file, damaged, or holds numbers that nothing can be computed with.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _open(path, links=links).close()
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{path}: damaged ({' '.join(str(error).split())}); write it again") from error
    usual = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool}
    for name, tensor in tensors.items():
        if tensor.dtype not in usual:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(f"{path}: {name[:80]!r} is {kind}; write it as bfloat16 or float32")
    if len(tensors) > _MOST_TENSORS:
        raise ArtifactError(f"{path}: {len(tensors)} tensors, at most {_MOST_TENSORS} are read; write fewer")
    return tensors


def digest(path: Path, *, links: bool = False) -> str:
    """Return the SHA-256 of a plain file in hex, computed once a process and anew when the file has changed.

    Args:
        path: of the file.
        links: see `read_json`.

    Raises:
        ArtifactError: it is missing or no plain file.
    """
    with _open(path, links=links) as file:
        status = os.fstat(file.fileno())
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if state not in _DIGESTS:
            made = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - status.st_ctime_ns < _SETTLED_NS:
                return made
            _DIGESTS[state] = made
        return _DIGESTS[state]


def make_readable(folder: Path) -> None:
    """Give every file below a folder made just now the mode the umask allows, which is that of the folder.

    safetensors writes through a temporary file, and what it leaves only its owner may read.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(folder.stat().st_mode & 0o666)


def write_whole(path: Path, text: str | bytes) -> Path:
    """Return `path` after putting `text` there, as UTF-8, in one step, safe against a kill and a loss of power.

    Raises:
        ArtifactError: the folder does not exist, or the file cannot be written (a full disk, a read-only folder); the
            old text stays.
    """
    if not path.parent.is_dir():
        raise ArtifactError(f"{path.parent}: no such folder; {path.name} is written into an existing folder")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # A model may write half a surrogate pair; one bad letter must not cost the file.
        with partial.open("wb") as out:
            out.write(text if isinstance(text, bytes) else text.encode("utf-8", errors="replace"))
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
