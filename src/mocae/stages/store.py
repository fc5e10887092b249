"""Folders of finished stages: written whole or not at all, and made again only when what they depend on changes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError

from mocae.distributed import agreed, is_main, wait
from mocae.errors import ArtifactError
from mocae.files import (
    make_readable,
    read_record,
    write_whole,
)
from mocae.outputs import Kind, claim, refuse_foreign
from mocae.stages.pool import StagePool, link_tree
from mocae.stages.record import RECORD, VERSION, StageRecord, is_whole, key_of, refuse_changed

__all__ = ["Stage", "Store", "Took", "folder_name", "is_whole", "key_of", "refuse_changed"]


def _key(name: str, inputs: Mapping[str, Any], needs: Iterable[Stage]) -> str:
    return key_of({"stage": name, **inputs, "needs": [[stage.name, stage.key] for stage in needs]})


def folder_name(name: str) -> str:
    """Return a system's name as one part of a path: letters, digits, dot, dash and underscore stay.

    >>> folder_name("expert:honesty"), folder_name("alignx - fractal")
    ('expert__honesty', 'alignx_-_fractal')
    """
    return "".join("__" if c == ":" else c if c.isalnum() or c in "._-" else "_" for c in name)


def _is_of_the_disk(error: Exception) -> bool:
    """Return whether an error means that a file could not be written; libraries that write raise their own."""
    if isinstance(error, SafetensorError):
        return "I/O error" in str(error)  # else a tensor it cannot hold
    if isinstance(error, RuntimeError):  # torch.save, in a checkpoint
        return any(word in str(error) for word in ("inline_container", "PytorchStreamWriter", "iostream error"))
    return isinstance(error, OSError)


def _unwritable(path: Path, error: Exception) -> ArtifactError:
    reason = getattr(error, "strerror", None) or error
    return ArtifactError(
        f"{path}: could not be written ({reason}). Free space or choose another --out; the same command goes on with "
        "what is finished"
    )


@dataclass(frozen=True, slots=True)
class Took:
    """How long a stage took to make: wall clock, and processor time of all threads of the process, in seconds.

    A training that was killed and went on from a checkpoint counts from there.
    """

    seconds: float
    cpu_seconds: float

    def __add__(self, other: Took) -> Took:
        return Took(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage.

    Attributes:
        path: its folder, which may have been changed since.
        key: of what was made, which later stages depend on.
        took: what making it took; None: not recorded.
        name: its place below the root of the store.
        needs: the stages it was made from.
        axis: the axis whose data alone it was made from; None: of all axes.
    """

    path: Path
    key: str
    took: Took | None = None
    name: str = ""
    needs: tuple[Stage, ...] = ()
    axis: str | None = None

    @property
    def folder(self) -> Path:
        """The folder, whose files are as they were finished whenever somebody goes to read them.

        Raises:
            ArtifactError: they are not.
        """
        refuse_changed(self.path, self.key)
        return self.path


class Store:
    """The stages of one output folder.

    A stage is made in a partial folder and renamed when it is complete; its record lists every file with its SHA-256.
    What a killed run left behind is never taken for finished, and a file damaged later is noticed.

    Where several processes do one job they all call `stage`, with the same arguments: all of them make it, since they
    share the work, and the main process alone writes it. The root lies where every process can read it.

    Args:
        root: the folder.
        pool: stages that other folders share; a stage found there is linked in, a stage made here is linked there.
        frozen: the folder is a finished run, of which no stage may be replaced by another.
        kind: the command whose folder it is, which `locked` refuses where it is somebody else's; None: any will do.
        files: of the folder, which the command writes at its end.

    Attributes:
        stages: every stage asked for so far, by name.
        n_made: how many of them were not there.
    """

    def __init__(
        self,
        root: Path,
        pool: StagePool | None = None,
        *,
        frozen: bool = False,
        kind: Kind | None = None,
        files: Collection[str] = (),
    ) -> None:
        self.root = root
        self.kind = kind
        self.files = files
        self.pool = pool
        self.frozen = frozen
        self.stages: dict[str, Stage] = {}
        self.n_made = 0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Return a context in which this job alone may write the folder.

        Raises:
            ArtifactError: the folder cannot be written, is not this command's, or another run holds it.
        """
        lock, problem = None, None
        if is_main():
            try:
                lock = self._lock()
            except ArtifactError as error:
                problem = str(error)
        if problem := agreed(problem):
            raise ArtifactError(problem)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _lock(self) -> filelock.BaseFileLock:
        try:
            if self.kind is not None:
                refuse_foreign(self.root, self.kind, self.files)
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / ".lock")
            lock.acquire(timeout=0)
            if self.kind is not None:
                claim(self.root, self.kind, self.files)
            return lock
        except filelock.Timeout as error:
            raise ArtifactError(
                f"{self.root}: another run is writing this folder; wait for it, or give another --out"
            ) from error
        except OSError as error:
            raise ArtifactError(f"{self.root}: cannot be written ({error.strerror}); give another --out") from error

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
        *,
        needs: Iterable[Stage] = (),
        axis: str | None = None,
    ) -> Stage:
        """Return the stage `name`, made by `make(folder)` unless it is there for the same inputs and needs.

        Args:
            name: path below the root, such as "experts/helpfulness".
            inputs: JSON values the stage depends on.
            make: fills an empty folder.
            needs: stages it is made from, in an order that may matter; changed ones make it anew.
            axis: see `Stage`.

        Raises:
            ArtifactError: the disk is full or the folder cannot be written; finished stages stay. Or the store is
                frozen and holds another stage of this name.
        """
        edges = tuple(needs)
        key = _key(name, inputs, edges)
        folder = self.root / name
        # Held by key: of two runs that need the same stage one makes it and the other waits for it.
        with self.pool.held(key) if self.pool is not None and is_main() else nullcontext():
            main_key, whole = agreed((key, is_main() and self._found(name, folder, key)))
            if key != main_key:
                raise ArtifactError(
                    f"{folder}: the processes of this run do not agree on what it depends on; give every machine the "
                    "same recipe, data, base model and versions"
                )
            if not whole and self.frozen and folder.is_dir():
                raise ArtifactError(
                    f"{folder}: belongs to a finished run, whose router and report were made with it, and this would "
                    "be another. Give another --out, or `mocae run` the recipe into this folder: that makes anew "
                    "whatever depends on it"
                )
            if not whole and is_main():
                self._place(name, folder, lambda partial: self._fill(partial, name, key, make))
            elif not whole:
                with tempfile.TemporaryDirectory(prefix="mocae-") as own:
                    make(Path(own))
        wait()
        self.n_made += not whole
        record = read_record(folder / RECORD, StageRecord)
        took = None if record.took is None else Took(record.took.seconds, record.took.cpu_seconds)
        self.stages[name] = Stage(folder, record.made, took, name, edges, axis)
        return self.stages[name]

    def _found(self, name: str, folder: Path, key: str) -> bool:
        """Return whether the stage is there, linked from the pool if need be; one that is there is linked into it."""
        if self.pool is None:
            return is_whole(folder, key)
        pooled = self.pool.folder(key)
        if is_whole(folder, key):
            if not pooled.is_dir():
                self.pool.add(key, folder)
            return True
        if not is_whole(pooled, key):
            return False
        self._place(name, folder, lambda partial: link_tree(pooled, partial))
        return True

    def _place(self, name: str, folder: Path, fill: Callable[[Path], None]) -> None:
        """Put what `fill` makes of a partial folder in place of `folder`, whole."""
        partial = self.root / ".partial" / name.replace("/", "__")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            fill(partial)
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._swap(partial, folder)
        except (OSError, SafetensorError, RuntimeError) as error:
            if not _is_of_the_disk(error):
                raise
            raise _unwritable(folder, error) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _fill(self, partial: Path, name: str, key: str, make: Callable[[Path], None]) -> None:
        """Make the stage in `partial`, timed and sealed, and give it to the pool."""
        partial.mkdir()
        wall, cpu = time.perf_counter(), time.process_time()
        make(partial)
        self._seal(partial, name, key, Took(time.perf_counter() - wall, time.process_time() - cpu))
        if self.pool is not None:
            self.pool.add(key, partial)

    def work(self, name: str, inputs: Mapping[str, Any], *, needs: Iterable[Stage] = ()) -> Path:
        """Return a folder for files that outlive a kill but are no part of the stage (checkpoints, a log of answers).

        The arguments are those of `stage`: what another stage left behind is nothing to go on from.
        """
        return self.root / ".work" / f"{name.replace('/', '__')}-{_key(name, inputs, needs)[:12]}"

    def clean(self) -> None:
        """Remove what is no part of the result."""
        for name in (".partial", ".work", ".stale"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for leftover in self.root.glob(".*.partial"):
            leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every stage, so that the folder is no finished run; other files stay, and runs in folders below."""
        for name in ("manifest.json", "outcomes.jsonl", ".dtype.json"):  # in this order: a kill may leave half
            (self.root / name).unlink(missing_ok=True)
        self.clean()
        for record in list(self.root.rglob(RECORD)):
            with suppress(ArtifactError):
                if read_record(record, StageRecord).stage == record.parent.relative_to(self.root).as_posix():
                    shutil.rmtree(record.parent)

    def _seal(self, folder: Path, name: str, key: str, took: Took) -> None:
        make_readable(folder)
        files = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            with path.open("rb+") as file:
                files[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
        clock = {name: round(value, 3) for name, value in asdict(took).items()}
        record = {"version": VERSION, "stage": name, "key": key, "files": files, "took": clock}
        write_whole(folder / RECORD, json.dumps({**record, "seal": key_of(record)}, indent=1) + "\n")

    def _swap(self, partial: Path, folder: Path) -> None:
        stale = self.root / ".stale" / partial.name
        shutil.rmtree(stale, ignore_errors=True)
        if folder.exists():
            stale.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(stale)
        partial.rename(folder)
        shutil.rmtree(stale, ignore_errors=True)
