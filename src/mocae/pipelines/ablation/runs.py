"""The runs of an ablation: one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from mocae.config import Recipe
from mocae.errors import ConfigError, MocaeError
from mocae.pipelines.run import run
from mocae.progress import Bar, bar, say
from mocae.stages.pool import StagePool

__all__ = ["PlannedRun", "run_all"]

_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run to make: what it is called, its recipe, and where it goes.

    `path` and `overrides` are what `recipe` was loaded from; a process of its own loads it again.
    """

    label: str
    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    folder: Path


def run_all(
    planned: Sequence[PlannedRun],
    *,
    systems: Sequence[str] | None,
    pool: StagePool,
    jobs: int,
    threads: int | None,
    progress: bool,
    overwrite: bool = False,
) -> None:
    """Make every run; stages that several need are made once.

    Args:
        planned: the runs, in order.
        systems: compare only these.
        pool: where runs share stages.
        jobs: runs at a time. More than one: each is a process of its own.
        threads: threads of a run; None: all for one job, else the cores shared out among the jobs.
        progress: show progress on stderr.
        overwrite: replace finished runs with other settings.

    Raises:
        ConfigError: `jobs` or `threads` is under 1.
        MocaeError: a run failed; what is finished stays, and no other run is begun.
    """
    for name, value in (("--jobs", jobs), ("--threads", threads)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is needed")
    if jobs == 1:
        with _threads(threads):
            for one in planned:
                say(one.label)
                run(one.recipe, out=one.folder, systems=systems, progress=progress, pool=pool, overwrite=overwrite)
        return
    shared = threads if threads is not None else max(1, (os.cpu_count() or 1) // jobs)
    flags = (*(("--systems", ",".join(systems)) if systems is not None else ()), *["--overwrite"][: int(overwrite)])
    _in_processes(planned, flags, pool, jobs, shared)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(slots=True)
class _Child:
    """A run in a process of its own; what it says is kept for the case that it fails."""

    planned: PlannedRun
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    started: float


def _in_processes(
    planned: Sequence[PlannedRun], flags: Sequence[str], pool: StagePool, jobs: int, threads: int
) -> None:
    waiting, running = list(planned), list[_Child]()
    with _terminated_is_interrupted(), bar(len(planned), f"runs, {jobs} at a time") as shown:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(waiting.pop(0), flags, pool, threads))
                time.sleep(_POLL_SECONDS)
                shown.note("; ".join(_doing(child) for child in running))
                for child in [c for c in running if c.process.poll() is not None]:
                    running.remove(child)
                    _finish(child, shown)
        finally:
            for child in running:
                child.process.terminate()
            for child in running:
                child.process.wait()
                _close(child)


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Return a context in which SIGTERM ends this process as Ctrl-C does, so that the runs end with it."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: who started the thread handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(planned: PlannedRun, flags: Sequence[str], pool: StagePool, threads: int) -> _Child:
    # -P: a yaml.py in the folder one stands in is not the package of that name.
    command = [sys.executable, "-P", "-m", "mocae", "run", str(planned.path)]
    command += ["--out", str(planned.folder), "--no-progress"]
    # A run that outlived this process would keep its folder locked; stdin is what tells it that this one is gone.
    command += ["--stages", str(pool.root), "--lifeline"]
    command += [word for override in planned.overrides for word in ("--set", override)]
    command += flags
    # Before torch is imported there: its thread pools are made once.
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    said = tempfile.TemporaryFile()
    process = subprocess.Popen(
        command, env={**os.environ, **limits}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
    )
    return _Child(planned, process, said, time.perf_counter())


def _doing(child: _Child) -> str:
    """Return the run and the stage it makes now, as its folder shows."""
    making = child.planned.folder / ".partial"
    names = sorted(path.name.replace("__", "/") for path in making.iterdir()) if making.is_dir() else []
    return f"{child.planned.label}: {names[-1]}" if names else child.planned.label


def _finish(child: _Child, shown: Bar) -> None:
    """Count a finished run, or raise what it died of."""
    child.said.seek(0)
    text = child.said.read().decode("utf-8", errors="replace").strip()
    _close(child)
    code = child.process.returncode
    if code < 0:
        raise MocaeError(f"{child.planned.label}: {_killed(-code)}; the same command goes on with what is finished")
    if code:
        last = text.splitlines()[-1] if text else f"exit status {code}"
        kind = ConfigError if code == 2 else MocaeError
        raise kind(f"{child.planned.label}: {last.removeprefix('error: ')}")
    say(f"{child.planned.label}: done in {time.perf_counter() - child.started:.0f} s")
    shown.advance()


def _killed(number: int) -> str:
    """Return what a signal did to a run, with the likely cause where there is one."""
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if name == "SIGKILL":  # the system's answer to a full memory; nothing is said before it
        return "killed by SIGKILL, most likely because memory ran out (fewer --jobs need less)"
    return f"killed by {name}"


def _close(child: _Child) -> None:
    child.said.close()
    if child.process.stdin is not None:
        child.process.stdin.close()
