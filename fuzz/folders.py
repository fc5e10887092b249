"""Fuzz whole folders: `python fuzz/folders.py [--runs 20000] [--seed 1]`. Ends with 1 when there was a finding.

A tiny finished run and its exports are made once. In every case a few of their files become something else: any value
of any JSON another one, a file a link, a FIFO, a device, a folder, cut, emptied or with other bytes; seals and hashes
are mostly made good again, as somebody would who means harm. Then the folder is opened as commands open it. Anything
but an error of `mocae.errors` is a finding, and so is a case of more than ten seconds.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import json
import os
import random
import shutil
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mocae import files
from mocae.errors import MocaeError
from mocae.export import chooser, pull, push
from mocae.models import LoadedBase, load_base
from mocae.models import load as models
from mocae.pipelines import artifact, export
from mocae.pipelines.compare import compare
from mocae.pipelines.seen import read_seen
from mocae.policies import Steering
from mocae.report import comparison_page
from mocae.serving.served import Served
from mocae.stages.store import key_of
from mocae.ui.page import _prompts
from mocae.ui.panels import reliability

LIMIT_S = 10
"""Of the processor; by the clock it is ten times that, for machines that do other things too."""
AXES = ("helpfulness", "honesty")
OTHERS = ("linear", "knn", "prompt_only", "joint", "merge:task-arithmetic", "trinityx")
"""Systems that are asked beside the default."""
VALUES: list[Any] = [
    *json.loads('[null, true, false, 0, 1, -1, 2.5, 2147483648, 1e308, NaN, Infinity, "", "x", "1", "\\ud800", "<b>"]'),
    *json.loads('["$\\\\frac$", "/dev/zero", "../../../../dev/zero", "..", ".", "a\\u0000b", "a\\nb", [], {}, [[]]]'),
    *json.loads('[[null], [1, "a"], {"a": 1}, {"": {}}, [0.5, 0.5, 0.5]]'),
    *(10**400, "x" * 5000, ".?" * 40, ["x"] * 2000),
]


class Hang(BaseException):
    """A case took too long; no reader may catch it."""


def make(root: Path) -> None:
    """Write a base model, a finished run on it and two exports below `root`."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from mocae.pipelines.run import run
    from run_for_tests import tiny_base, tiny_recipe

    systems = [
        "base",
        {"name": "alignx", "policy": "alignx", "options": {"routing": {"output": {"rank": 2}}}},
        *OTHERS,
    ]
    recipe = tiny_recipe(tiny_base(root / "base"), axes=AXES, systems=systems)
    run(recipe, out=root / "run", progress=False)
    options = export.ExportOptions(n_mixtures=2, measure=False)
    export.export(root / "run", to="vllm", out=root / "vllm", options=options, device="cpu", progress=False)
    weights = export.ExportOptions(weights=dict.fromkeys(AXES, 0.5))
    export.export(root / "run", to="peft", out=root / "peft", options=weights, device="cpu", progress=False)


class _Hub:
    """The hub as a folder; takes what is pushed without looking at it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def snapshot_download(self, *_: object, **__: object) -> str:
        return str(self.folder)

    def create_repo(self, *_: object, **__: object) -> None:
        pass

    def create_commit(self, repo: str, operations: list[Any], **_: object) -> Any:
        for operation in operations:
            with operation.as_file() as content:
                content.read(1 << 20)
        return argparse.Namespace(commit_url="")


class Folders:
    """The folders, what opens them, and how they are spoilt and mended.

    Args:
        root: where `make` has written.
        work: an empty folder, for copies.
    """

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work = root, work
        self.base = load_base(root / "base", dtype="fp32", device="cpu")
        self.files: dict[str, list[str]] = {}
        for name in ("run", "vllm", "peft"):
            shutil.copytree(root / name, work / name)
            skipped = ("recipe.yaml", ".lock", "report.html")
            self.files[name] = [f for f in files.plain_files(work / name) if f not in skipped and "answers/" not in f]
        self._page(work / "run")  # what is imported late is imported here, out of the limit
        self.targets: dict[str, tuple[str, Callable[[Path], object]]] = {
            "load": ("run", lambda folder: artifact.load(folder, device="cpu")),
            **{f"chat {system}": ("run", partial(self._chat, system)) for system in OTHERS},
            "chat": ("run", partial(self._chat, None)),
            "serve": ("run", lambda folder: Served(artifact.load(folder, device="cpu").artifact, version="0")),
            "export": ("run", self._export),
            "compare": ("run", self._compare),
            "ui": ("run", self._page),
            "push": ("run", lambda folder: push(folder, "a/b", with_answers=True, api=_Hub(folder))),
            "gateway": ("vllm", self._gateway),
            "pull": ("peft", self._pull),
        }

    @contextmanager
    def known_base(self) -> Iterator[None]:
        """Give loaders a copy of the base model in place of reading it from the disk each time."""
        own = str(self.root / "base")

        def load(name: Any, **options: Any) -> LoadedBase:
            if name != own:
                return load_base(name, **options)
            return LoadedBase(copy.deepcopy(self.base.model), self.base.tokenizer)

        before = models.load_base
        models.load_base = load  # type: ignore[assignment]
        try:
            yield
        finally:
            models.load_base = before

    def _chat(self, system: str | None, folder: Path) -> None:
        artifact.refuse_unusable(folder, steering=Steering(at_least={"honesty": 0.5}), system=system)
        artifact.load(folder, system=system, device="cpu").reply("Name a river.", max_new_tokens=2)

    def _export(self, folder: Path) -> None:
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        options = export.ExportOptions(n_mixtures=2, measure=False)
        export.export(folder, to="vllm", out=out, options=options, device="cpu", progress=False)

    def _compare(self, folder: Path) -> None:
        found = compare(f"{folder}:base", f"{folder}:alignx")
        json.dumps(found.as_json())
        comparison_page(found.as_json())

    def _page(self, folder: Path) -> None:
        report = artifact.read_report(folder)
        _prompts(report)
        reliability(report)
        read_seen(folder)

    def _gateway(self, folder: Path) -> None:
        chooser.load_chooser(folder, device="cpu").choose("Name a river.", is_chat=True)

    def _pull(self, folder: Path) -> None:
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        pull("a/b", out, api=_Hub(folder))

    def case(self, seed: int) -> str | None:
        """Spoil a folder, open it, mend it, and return the finding, None where there was none."""
        draw = random.Random(seed)
        target = draw.choice(list(self.targets))
        name, read = self.targets[target]
        folder = self.work / name
        spoilt = [
            self._spoil(draw, folder, path) for path in draw.sample(self.files[name], draw.choice((1, 1, 1, 2, 3)))
        ]
        if draw.random() < 0.75:
            spoilt += _mend_seals(folder, spoilt)
        finding = None
        _limit(LIMIT_S)
        try:
            with torch.inference_mode():
                read(folder)
        except MocaeError:
            pass
        except (Exception, Hang) as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = next((f for f in reversed(frames) if "/mocae/" in f.filename), frames[-1])
            finding = (
                f"{target}: {type(error).__name__} in {Path(ours.filename).name}:{ours.lineno}: {str(error)[:150]!r}"
            )
        finally:
            _limit(0)
            self._restore(name, spoilt)
        return finding

    def _spoil(self, draw: random.Random, folder: Path, path: str) -> str:
        whole = folder / path
        if not whole.is_file():  # the folder around it was spoilt before
            return path
        if path.endswith((".json", ".jsonl")) and draw.random() < 0.75:
            lines = (
                whole.read_text(encoding="utf-8").split("\n")
                if path.endswith("l")
                else [whole.read_text(encoding="utf-8")]
            )
            at = draw.randrange(len(lines))
            value = json.loads(lines[at] or "{}")
            for _ in range(draw.choice((1, 1, 2))):
                value = _other(draw, value)
            with suppress(RecursionError):  # nested too deeply to be written
                lines[at] = json.dumps(value)
            if draw.random() < 0.05:
                lines.insert(at, lines[at])
            _replace(whole, lambda: whole.write_text("\n".join(lines), encoding="utf-8"))
            return path
        if draw.random() < 0.1 and "/" in path:
            path = path.rpartition("/")[0]
            whole = folder / path
            kept = self.work / f"kept-{folder.name}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.move(whole, kept)
            draw.choice((lambda: whole.symlink_to(kept), whole.touch, lambda: os.mkfifo(whole)))()
            return path
        content = whole.read_bytes()
        other = bytearray(content)
        for _ in range(draw.choice((1, 4))):
            if other:
                other[draw.randrange(min(len(other), draw.choice((16, 400, 1 << 30))))] = draw.randrange(256)
        spoil: list[Callable[[], object]] = [
            lambda: whole.symlink_to("/dev/zero"),
            lambda: whole.symlink_to("/etc/hostname"),
            lambda: whole.symlink_to(whole.name),
            lambda: os.mkfifo(whole),
            lambda: _device(whole),
            whole.mkdir,
            whole.touch,
            lambda: None,
            lambda: whole.write_bytes(content[: draw.randrange(len(content) + 1)]),
            *[lambda: whole.write_bytes(other)] * 3,
        ]
        _replace(whole, draw.choice(spoil))
        return path

    def _restore(self, name: str, paths: list[str]) -> None:
        for path in sorted(paths, key=len):  # folders before what is in them
            whole, source = self.work / name / path, self.root / name / path
            _remove(whole)
            whole.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, whole)
            else:
                shutil.copy(source, whole)


def _copied(value: Any) -> Any:
    """Return a copy; of a value nested too deeply for one, nothing."""
    try:
        return copy.deepcopy(value)
    except RecursionError:
        return None


def _other(draw: random.Random, value: Any) -> Any:
    """Return a JSON value with one of its parts replaced, removed or added."""
    places: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        one = todo.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, inner in items:
            places.append((one, key))
            todo.append(inner)
    if not places or draw.random() < 0.03:
        return copy.deepcopy(draw.choice(VALUES))
    inside, key = draw.choice(places)
    chance = draw.random()
    if chance < 0.1:
        del inside[key]
    elif chance < 0.2 and isinstance(inside, dict):
        inside[draw.choice(("x", "", "../x", ".?" * 40, "$_$"))] = inside.pop(key)
    elif chance < 0.35:
        other, place = draw.choice(places)
        inside[key] = _copied(other[place])
    elif chance < 0.4:
        for _ in range(draw.choice((3, 150, 900))):
            inside[key] = [inside[key]]
    else:
        inside[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def _limit(seconds: int) -> None:
    """End what takes longer; 0: nothing. What does not come back to Python ends the whole process with its stack."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)
    if seconds:
        faulthandler.dump_traceback_later(30 * seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(path: Path, make: Callable[[], object]) -> None:
    _remove(path)
    make()


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end
    except OSError:
        path.symlink_to("/dev/zero")


def _mend_seals(folder: Path, spoilt: list[str]) -> list[str]:
    """Bring records back in line with spoilt files, as far as they are records still, and return what was changed."""
    changed = []
    try:
        if (folder / "export.json").exists():
            changed += _mend(folder, folder / "export.json", lambda record: None)
        for path in spoilt:
            stage = next((p for p in (folder / path).parents if (p / "stage.json").exists()), None)
            if stage is not None and stage != folder:
                changed += _mend(folder, stage / "stage.json", _sealed)
        if any(path.endswith("stage.json") for path in changed):
            manifest = files.read_json(folder / "manifest.json")
            manifest.pop("stages", None)
            _replace(folder / "manifest.json", lambda: (folder / "manifest.json").write_text(json.dumps(manifest)))
            changed.append("manifest.json")
    except (MocaeError, OSError, ValueError, TypeError, AttributeError, KeyError):
        pass
    return changed


def _mend(folder: Path, path: Path, finish: Callable[[dict[str, Any]], None]) -> list[str]:
    if path.is_symlink() or not path.is_file():
        return []
    record = files.read_json(path)
    for name in list(record["files"]):
        file = path.parent / name
        if ".." not in name and file.is_file() and not file.is_symlink():
            record["files"][name] = files.digest(file)
    finish(record)
    _replace(path, lambda: path.write_text(json.dumps(record), encoding="utf-8"))
    return [path.relative_to(folder).as_posix()]


def _sealed(record: dict[str, Any]) -> None:
    record.pop("seal", None)
    record["seal"] = key_of(record)


def fuzz(root: Path, *, runs: int, seed: int, progress: bool = False) -> Counter[str]:
    """Return what was found in `runs` cases below `root`, where `make` has written; the seeds follow `seed`."""

    def hang(*_: object) -> None:
        raise Hang

    before = {number: signal.signal(number, hang) for number in (signal.SIGALRM, signal.SIGPROF)}
    found: Counter[str] = Counter()
    try:
        with tempfile.TemporaryDirectory(prefix="mocae-folders-", dir=root) as work:
            folders = Folders(root, Path(work))
            with folders.known_base():
                for i in range(runs):
                    finding = folders.case(seed * 1_000_000 + i)
                    if finding is not None:
                        found[finding] += 1
                        if progress and found[finding] == 1:
                            print(f"{i}: {finding}", flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return found


def main() -> None:
    """Fuzz as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the folders are made, or were made by a call before")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mocae-fuzz-", dir=memory) as own:
        root = arguments.folder or Path(own)
        if not (root / "peft").is_dir():
            make(root)
        clock, cpu = time.monotonic(), time.process_time()
        found = fuzz(root, runs=arguments.runs, seed=arguments.seed, progress=True)
    print(f"{arguments.runs} cases, {time.monotonic() - clock:.0f} s, {time.process_time() - cpu:.0f} s of processor")
    print(f"{sum(found.values())} findings of {len(found)} kinds")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
