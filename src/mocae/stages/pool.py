"""Finished stages that several output folders share: each is made once, by whoever needs it first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from mocae.files import write_whole
from mocae.progress import say

__all__ = ["StagePool", "link_tree"]


class StagePool:
    """A folder of stages by key, safe to use from several processes.

    Files are hard links to those of the folders that use them, so a stage that ten runs share lies on the disk once.
    That is safe because a finished stage is replaced by renaming, never written to.

    Args:
        root: the folder; made when first needed. It must lie on the file system of the folders that share it for
            links to work; elsewhere files are copied.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return where the stage of a key lies, or will lie."""
        return self.root / key

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Return a context in which this process alone makes the stage of a key; others wait."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.root / f".{key}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say("another run is making the stage this one needs next; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def remembered(self, name: str, decide: Callable[[], str]) -> str:
        """Return a choice that all folders share, decided by whoever asks first."""
        record = self.root / f".{name}"
        with self.held(name):
            if not record.is_file():
                write_whole(record, decide())
            return record.read_text(encoding="utf-8")

    def add(self, key: str, stage: Path) -> None:
        """Link a finished stage into the pool; its key must be held."""
        partial = self.root / f".{key}.partial"
        for old in (partial, self.folder(key)):  # left by a kill, or damaged since
            shutil.rmtree(old, ignore_errors=True)
        link_tree(stage, partial)
        partial.rename(self.folder(key))

    def prune(self) -> None:
        """Remove stages that no folder uses any more, and locks; no run may be using the pool."""
        for entry in self.root.iterdir() if self.root.is_dir() else ():
            if entry.suffix == ".lock":
                entry.unlink(missing_ok=True)
            elif not entry.is_dir():
                continue
            elif entry.name.startswith(".") or all(_is_last(path) for path in entry.rglob("*") if path.is_file()):
                shutil.rmtree(entry, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source` by hard links, by copying where the file system has none."""
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_last(path: Path) -> bool:
    return path.stat().st_nlink == 1
