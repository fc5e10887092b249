"""Progress of long work, shown on stderr; one switch for all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "Job", "bar", "say", "track", "visible"]

T = TypeVar("T")
_console = Console(stderr=True)
_shown = os.environ.get("MOCAE_PROGRESS", "1") != "0"


@contextmanager
def visible(shown: bool) -> Iterator[None]:
    """Return a context in which progress is shown or not."""
    global _shown
    before, _shown = _shown, shown
    try:
        yield
    finally:
        _shown = before


class Bar:
    """A running bar: `advance` moves it, `note` shows a few words beside it."""

    def __init__(self, progress: Progress, total: int, description: str) -> None:
        self._progress = progress
        self._total = total
        self._task = progress.add_task(description, total=total, note="")

    def advance(self, steps: int = 1) -> None:
        """Move on by `steps`."""
        self._progress.advance(self._task, steps)

    def finish(self) -> None:
        """Move to the end: other processes have done the rest."""
        self._progress.update(self._task, completed=self._total)

    def note(self, text: str) -> None:
        """Show `text` beside the bar."""
        self._progress.update(self._task, note=text)


@contextmanager
def bar(total: int, description: str) -> Iterator[Bar]:
    """Return a context with a bar of `total` steps; it leaves one line behind when it ends."""
    columns = (
        TextColumn("{task.description:<34}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=_console, disable=not _shown) as progress:
        yield Bar(progress, total, description)


def track(items: Sequence[T], description: str) -> Iterator[T]:
    """Yield the items and show how many are done."""
    with bar(len(items), description) as shown:
        for item in items:
            yield item
            shown.advance()


class Job:
    """A long work in parts: after each one a line says how far the whole is, and about how long is left.

    Args:
        parts: name -> how much work it is, in any unit that is the same for all.
        made: how many things were made so far: a part that an earlier start made says nothing of the time for others.
    """

    def __init__(self, parts: Mapping[str, float], made: Callable[[], int]) -> None:
        self._made = made
        self._left = dict(parts)
        self._n, self._all = len(parts), sum(parts.values())
        self._began = time.perf_counter()
        self._timed = self._seconds = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Return a context in which the part `name` is done."""
        began, before = time.perf_counter(), self._made()
        yield
        took, work = time.perf_counter() - began, self._left.pop(name)
        if self._made() > before:
            self._timed, self._seconds = self._timed + work, self._seconds + took
        rest = sum(self._left.values())
        left = f", about {_clock(self._seconds * rest / self._timed)} left" if self._timed and self._left else ""
        gone = _clock(time.perf_counter() - self._began)
        share = 1 - rest / self._all if self._all else 1.0
        say(f"whole run: {self._n - len(self._left)} of {self._n} parts, {share:.0%}, {gone} gone{left} ({name} done)")


def _clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def say(text: str) -> None:
    """Print one line of progress, as it stands."""
    if _shown:
        _console.print(text, highlight=False, markup=False, soft_wrap=True)
