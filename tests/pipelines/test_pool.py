from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mocae.stages.pool import StagePool
from mocae.stages.store import Store


def never(_: Path) -> None:
    raise AssertionError("made again")


def write(text: str = "whole") -> object:
    def make(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text, encoding="utf-8")

    return make


@pytest.fixture
def pool(tmp_path: Path) -> StagePool:
    return StagePool(tmp_path / ".stages")


def made(root: Path, pool: StagePool, x: int = 1, make: object = None) -> Path:
    stage = Store(root, pool).stage("experts/kind", {"x": x}, make or write())  # type: ignore[arg-type]
    return stage.folder / "deep" / "a.txt"


def test_a_stage_made_for_one_folder_is_linked_into_another(tmp_path: Path, pool: StagePool) -> None:
    first, second = made(tmp_path / "a", pool), made(tmp_path / "b", pool, make=never)
    assert second.read_text(encoding="utf-8") == "whole"
    assert first.samefile(second)
    assert Store(tmp_path / "b").stage("experts/kind", {"x": 1}, never).took is not None  # whole without the pool too


def test_other_inputs_are_made_and_leave_the_linked_files_alone(tmp_path: Path, pool: StagePool) -> None:
    first = made(tmp_path / "a", pool)
    made(tmp_path / "b", pool, make=never)
    changed = made(tmp_path / "b", pool, x=2, make=write("other"))
    assert (first.read_text(encoding="utf-8"), changed.read_text(encoding="utf-8")) == ("whole", "other")


def test_a_stage_that_was_there_before_the_pool_is_shared(tmp_path: Path, pool: StagePool) -> None:
    Store(tmp_path / "a").stage("experts/kind", {"x": 1}, write())  # type: ignore[arg-type]
    made(tmp_path / "a", pool, make=never)
    made(tmp_path / "b", pool, make=never)


def test_damage_in_the_pool_is_noticed(tmp_path: Path, pool: StagePool) -> None:
    made(tmp_path / "a", pool)
    (pooled,) = [path for path in pool.root.glob("*/deep/a.txt")]
    pooled.unlink()
    assert made(tmp_path / "b", pool, make=write("again")).read_text(encoding="utf-8") == "again"
    made(tmp_path / "c", pool, make=never)


def test_where_there_are_no_hard_links_files_are_copied(
    tmp_path: Path, pool: StagePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("os.link", no_links)
    first, second = made(tmp_path / "a", pool), made(tmp_path / "b", pool, make=never)
    assert not first.samefile(second)


def test_pruning_keeps_what_a_folder_uses(tmp_path: Path, pool: StagePool) -> None:
    made(tmp_path / "a", pool, x=1)
    made(tmp_path / "a", pool, x=2)  # replaces the first, which no folder uses now
    assert len(list(pool.root.glob("[!.]*"))) == 2
    pool.prune()
    assert len(list(pool.root.glob("*"))) == 1
    made(tmp_path / "b", pool, x=2, make=never)


def test_a_shared_choice_is_made_once(pool: StagePool) -> None:
    assert pool.remembered("dtype", lambda: "fp32") == "fp32"
    pool.prune()
    assert pool.remembered("dtype", lambda: "bf16") == "fp32"


RACE = """
    import sys, time
    from pathlib import Path
    from mocae.stages.pool import StagePool
    from mocae.stages.store import Store

    def make(folder):
        print("made", flush=True)
        time.sleep(0.5)
        (folder / "a.txt").write_text("whole")

    stage = Store(Path(sys.argv[1]), StagePool(Path(sys.argv[2]))).stage("s", {"x": 1}, make)
    assert (stage.folder / "a.txt").read_text() == "whole"
"""


def test_of_two_processes_one_makes_the_stage_and_the_other_waits(tmp_path: Path, pool: StagePool) -> None:
    command = [sys.executable, "-c", textwrap.dedent(RACE)]
    both = [
        subprocess.Popen([*command, str(tmp_path / name), str(pool.root)], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said) == "made\n"
