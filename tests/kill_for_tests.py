"""Kill a run in each of its stages, look at what each kill left, and compare its end with that of a run nobody killed.

python tests/kill_for_tests.py --kills 20 --seed 0      # a table of the moments, for docs/reliability.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from mocae.config import Recipe
from mocae.pipelines.run import run
from run_for_tests import tiny_base, tiny_recipe

SYSTEMS: list[Any] = [
    *("base", "expert:helpfulness", "expert:harmlessness", "expert:honesty", "linear", "alignx", "oracle", "joint"),
    *("sequential", {"name": "mean", "policy": "merge:average"}, "trinityx"),
]


@dataclass(frozen=True)
class Target:
    """Where to kill: a stage of the run, or "report" for what is written behind the last one.

    Attributes:
        stage: its name.
        seconds: processor time it takes, which other work of the machine does not stretch.
    """

    stage: str
    seconds: float

    @property
    def kind(self) -> str:
        """The part of a run it belongs to; trinityx has experts and a router of its own."""
        parts = self.stage.split("/")
        return "/".join(parts[:2]).partition("__")[0] if parts[0] == "trinityx" else parts[0]

    def begun(self, out: Path) -> float:
        """Return when it was begun, in seconds of the clock of files; 0: not yet."""
        partial = out / ".partial" / self.stage.replace("/", "__")
        try:
            return (out / "samples.jsonl" if self.stage == "report" else partial).stat().st_ctime
        except OSError:
            return 0


@dataclass(frozen=True)
class Moment:
    """One kill.

    Attributes:
        run: number of the run that was killed.
        target: the stage that was drawn.
        at: seconds of processor time into it.
        in_work: what was being made: the stage in the partial folder, "report" behind the last stage, else "between".
        n_whole: stages that were finished.
        n_broken: stages that could be taken for finished and are not whole; must be 0.
    """

    run: int
    target: Target
    at: float
    in_work: str
    n_whole: int
    n_broken: int


def kill(recipe: Recipe, root: Path, n: int, rng: random.Random, *, per_run: int = 5) -> Iterator[Moment | bool]:
    """Yield every kill, and behind the kills of each run whether it ended as one that nobody killed.

    A kill is drawn in two steps: the stage, every kind of stage once before any comes again, then a moment within it.
    So a stage that is over in a blink is hit as often as one that takes most of the time.

    Args:
        recipe: what to run.
        root: folder to work in.
        n: kills altogether.
        rng: of the stages and moments.
        per_run: kills of one run, in the order of its stages.
    """
    whole = root / "whole"
    assert _finish(recipe, whole) == 0
    targets = _targets(whole)
    kinds: list[str] = []
    number = 0
    while n:
        number += 1
        out = root / f"killed-{number}"
        drawn = []
        for _ in range(min(n, per_run)):
            kinds = kinds or rng.sample(sorted({t.kind for t in targets}), k=len({t.kind for t in targets}))
            kind = kinds.pop()
            drawn.append(rng.choice([t for t in targets if t.kind == kind]))
        for target in sorted(drawn, key=targets.index):
            started, child = time.time(), _start(recipe, out)
            at = rng.uniform(0, target.seconds)
            if _reaches(child, target, at, out, started):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                n -= 1
                n_whole, broken, in_work = _left_behind(out)
                yield Moment(number, target, at, in_work, n_whole, len(broken))
        yield _finish(recipe, out) == 0 and result(out) == result(whole)
        shutil.rmtree(out)


def _reaches(child: int, target: Target, at: float, out: Path, started: float) -> bool:
    """Return True when the child is `at` seconds into the stage, False when it ends before: a kill before came late."""
    process, begun = psutil.Process(child), None
    while not os.waitpid(child, os.WNOHANG)[0]:
        spent = sum(process.cpu_times()[:2])
        if begun is None and target.begun(out) >= started:
            begun = spent
        if begun is not None and spent - begun >= at:
            return True
        time.sleep(0.002)
    return False


def _targets(whole: Path) -> list[Target]:
    """Return the stages of a run that is through, in the order they were made, and the report behind them."""
    records = sorted(whole.rglob("stage.json"), key=lambda path: path.stat().st_mtime)
    told = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    stages = [Target(record["stage"], record["took"]["cpu_seconds"]) for record in told]
    first, last = (whole / name for name in ("samples.jsonl", "manifest.json"))
    return [*stages, Target("report", last.stat().st_mtime - first.stat().st_mtime)]


def result(out: Path) -> dict[str, Any]:
    """Return what a run found: the report but for time, memory and machine, every answer, every tensor, rests."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for system in report["systems"].values():
        system.pop("cost")
    for told in ("environment", "updates"):  # of the machine, and how long stages took
        report.pop(told)
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    tensors = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.safetensors"))
    }
    rests = sorted(path.name for path in out.iterdir() if path.name.startswith(".") and path.is_dir())
    return {"report": report, "samples": samples, "tensors": tensors, "rests": rests}


def _start(recipe: Recipe, out: Path) -> int:
    """Start the run in a process of its own and return its id. Forked, so that the libraries are loaded once."""
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        code = 1
        try:
            run(recipe, out=out, progress=False)
            code = 0
        finally:
            os._exit(code)


def _finish(recipe: Recipe, out: Path) -> int:
    _, status = os.waitpid(_start(recipe, out), 0)
    return os.waitstatus_to_exitcode(status)


def _left_behind(out: Path) -> tuple[int, list[str], str]:
    """Return how many stages are finished, those that say so and are not, and what was in work."""
    if not out.is_dir():
        return 0, [], "before the folder"
    broken, n_whole = [], 0
    for record in out.rglob("stage.json"):
        if record.relative_to(out).parts[0].startswith("."):
            continue
        files = json.loads(record.read_text(encoding="utf-8"))["files"]
        good = all(
            (record.parent / name).is_file()
            and hashlib.sha256((record.parent / name).read_bytes()).hexdigest() == digest
            for name, digest in files.items()
        )
        n_whole += good
        if not good:
            broken.append(str(record.parent.relative_to(out)))
    for name in ("report.json", "manifest.json"):  # there or not, never half
        if (out / name).is_file():
            json.loads((out / name).read_text(encoding="utf-8"))
    partial = sorted((out / ".partial").iterdir()) if (out / ".partial").is_dir() else []
    if partial:
        return n_whole, broken, partial[0].name.replace("__", "/", 1)
    return n_whole, broken, "report" if (out / "samples.jsonl").is_file() else "between stages"


def kill_recipe(base: Path, systems: Sequence[Any] = SYSTEMS) -> Recipe:
    """Return a recipe, by default with every kind of stage, and a checkpoint after every second training step."""
    return tiny_recipe(base, "experts.optimizer.checkpoint_steps=2", systems=list(systems))


def _share_no_lock() -> None:
    """Give each process a lock of its own for progress bars: tqdm's is one for all, and a killed process keeps it."""
    tqdm.monitor_interval = 0  # no thread that could hold the lock at a fork
    tqdm.set_lock(threading.RLock())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="only what a run always has, and the router")
    given = parser.parse_args()
    _share_no_lock()
    print("| run | stage drawn | into it, s | in work | stages finished | taken for finished and broken |")
    print("|---:|---|---:|---|---:|---:|", flush=True)
    moments, ends = [], []
    with tempfile.TemporaryDirectory() as folder:
        recipe = kill_recipe(tiny_base(Path(folder) / "base"), ["base", "alignx"] if given.short else SYSTEMS)
        for told in kill(recipe, Path(folder), given.kills, random.Random(given.seed)):
            if isinstance(told, Moment):
                moments.append(told)
                cells = (told.run, told.target.stage, f"{told.at:.2f}", told.in_work, told.n_whole, told.n_broken)
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
            else:
                ends.append(told)
                print(f"run {len(ends)} ended {'the same' if told else 'DIFFERENTLY'}", flush=True)
    print(Counter(Target(m.in_work, 0).kind for m in moments))
    return 0 if all(ends) and not any(m.n_broken for m in moments) else 1


if __name__ == "__main__":
    sys.exit(main())
