"""Runs in processes of their own: they end with the one that started them, and a killed one says so."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mocae.config import Recipe, dump_recipe, load_recipe
from mocae.errors import ConfigError, MocaeError
from mocae.pipelines.ablation.runs import PlannedRun, run_all
from mocae.stages.pool import StagePool

RECIPE = Path(__file__).parents[2] / "recipes" / "pocket.yaml"


def run_with(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one run, of two at a time, in a process that is a shell script."""
    script = folder / "run.sh"
    script.write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    recipe: Recipe = load_recipe(RECIPE)
    planned = PlannedRun("seed 3", recipe, RECIPE, (), folder / "out")
    run_all([planned], systems=None, pool=StagePool(folder / "pool"), jobs=2, threads=None, progress=False)


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        (
            "echo 'a warning' >&2; kill -KILL $$",
            MocaeError,
            "seed 3: killed by SIGKILL, most likely because memory ran out (fewer --jobs need less); the same command "
            "goes on with what is finished",
        ),
        ("kill -SEGV $$", MocaeError, "seed 3: killed by SIGSEGV; the same command goes on with what is finished"),
        ("echo 'error: no such key' >&2; exit 2", ConfigError, "seed 3: no such key"),
        ("exit 7", MocaeError, "seed 3: exit status 7"),
    ],
)
def test_a_failed_run_says_what_it_died_of(
    program: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind) as caught:
        run_with(program, tmp_path, monkeypatch)
    assert str(caught.value) == message


def test_a_run_is_given_a_lifeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The script ends well only if it is told to watch its standard input and finds a pipe there that stays open.
    run_with('case "$*" in *--lifeline*) test -p /dev/stdin;; *) exit 1;; esac', tmp_path, monkeypatch)


def test_a_run_does_not_import_from_the_folder_one_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with('test "$1 $2 $3" = "-P -m mocae"', tmp_path, monkeypatch)


PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print("started", flush=True)
time.sleep(600)
"""


def test_a_run_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mocae", "run", str(RECIPE), "--out", str(tmp_path), "--no-progress", "--lifeline"]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    parent.kill()
    parent.communicate(timeout=60)  # both hold the pipe, so it ends when both have ended; the run takes minutes
    assert parent.returncode == -signal.SIGKILL
    assert not (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_a_killed_ablation_leaves_no_run_behind_and_goes_on(tmp_path: Path) -> None:
    from run_for_tests import tiny_base, tiny_recipe

    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    made = tiny_recipe(tiny_base(tmp_path / "base"))
    recipe.write_text(dump_recipe(made).replace("judge: coin", "judge: pocket"), encoding="utf-8")
    command = [sys.executable, "-m", "mocae", "ablate", str(recipe), "--out", str(out), "--seeds", "2", "--jobs", "2"]
    first = subprocess.Popen([*command, "--systems", "base"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not all((out / f"seed-{seed}" / ".partial").is_dir() for seed in (0, 1)):
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=60)
    again = subprocess.run([*command, "--systems", "base"], capture_output=True, text=True, check=False, timeout=600)
    assert again.returncode == 0, again.stderr
