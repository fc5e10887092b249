from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mocae.errors import ArtifactError, DataError
from mocae.stages.store import Store, folder_name, key_of, refuse_changed


class Maker:
    """Fills a folder and counts how often it was asked to."""

    def __init__(self, text: str = "whole") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "a.txt").write_text(self.text, encoding="utf-8")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(bytes(range(256)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def finished(store: Store, name: str = "experts/kind") -> Path:
    folder = store.stage(name, {"x": 1}, Maker()).folder
    assert (folder / "a.txt").read_text(encoding="utf-8") == "whole"
    return folder


def made_again(store: Store, name: str = "experts/kind") -> bool:
    """Ask for the finished stage once more; whatever happened to it, it is whole afterwards."""
    maker = Maker()
    folder = store.stage(name, {"x": 1}, maker).folder
    assert (folder / "a.txt").read_text(encoding="utf-8") == "whole"
    assert len((folder / "deep" / "b.bin").read_bytes()) == 256
    assert visible(store) == {"experts"}
    return maker.calls == 1


def visible(store: Store) -> set[str]:
    return {path.name for path in store.root.iterdir() if not path.name.startswith(".")}


def test_files_that_a_library_kept_to_their_owner_are_readable_as_the_umask_says(store: Store) -> None:
    def make(folder: Path) -> None:
        (folder / "own.bin").touch(mode=0o600)

    before = os.umask(0o027)
    try:
        folder = store.stage("experts/kind", {}, make).folder
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "own.bin": 0o640,
        "stage.json": 0o640,
    }


def test_a_finished_stage_is_not_made_again(store: Store) -> None:
    finished(store)
    assert not made_again(store)
    assert not made_again(Store(store.root))


def test_the_record_lists_every_file(store: Store) -> None:
    folder = finished(store)
    record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    assert sorted(record["files"]) == ["a.txt", "deep/b.bin"]
    assert record["stage"] == "experts/kind"


def test_the_record_says_how_long_it_took_and_the_key_does_not(store: Store) -> None:
    def slow(folder: Path) -> None:
        time.sleep(0.05)
        sum(range(400_000))
        (folder / "a.txt").write_text("whole", encoding="utf-8")

    made = store.stage("s", {"x": 1}, slow)
    assert made.took is not None
    assert 0.05 <= made.took.seconds < 5
    assert 0 < made.took.cpu_seconds <= made.took.seconds
    again = Store(store.root).stage("s", {"x": 1}, Maker())
    assert (again.key, again.took) == (made.key, made.took)
    assert store.stages == {"s": made}


def test_a_record_without_times_is_still_whole(store: Store) -> None:
    path = finished(store) / "stage.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["took"], record["seal"]
    path.write_text(json.dumps({**record, "seal": key_of(record)}), encoding="utf-8")
    assert not made_again(store)
    assert store.stages["experts/kind"].took is None


def test_changed_inputs_make_it_again_and_change_its_key(store: Store) -> None:
    first = store.stage("s", {"x": 1, "y": {"a": [1, 2]}}, Maker("old"))
    same = store.stage("s", {"y": {"a": [1, 2]}, "x": 1}, Maker("never"))
    assert same.key == first.key
    changed = store.stage("s", {"x": 1, "y": {"a": [2, 1]}}, Maker("new"))
    assert changed.key != first.key
    assert (changed.folder / "a.txt").read_text(encoding="utf-8") == "new"
    assert not (store.root / ".stale" / "s").exists()


def test_keys_depend_on_the_name_and_on_types(store: Store) -> None:
    assert store.stage("s", {}, Maker()).key != store.stage("t", {}, Maker()).key
    assert key_of({"x": 1}) != key_of({"x": "1"})
    assert key_of({"x": None}) != key_of({})


def _truncate(folder: Path) -> None:
    (folder / "deep" / "b.bin").write_bytes(b"")


def _flip(folder: Path) -> None:
    data = bytearray((folder / "deep" / "b.bin").read_bytes())
    data[7] ^= 1
    (folder / "deep" / "b.bin").write_bytes(data)


def _remove(folder: Path) -> None:
    (folder / "a.txt").unlink()


def _no_record(folder: Path) -> None:
    (folder / "stage.json").unlink()


def _record(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
        (folder / "stage.json").write_text(json.dumps(change(record)), encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip,
        _remove,
        _no_record,
        _record(lambda r: {**r, "key": "0" * 64}),
        _record(lambda r: {**r, "version": 99}),
        _record(lambda r: {**r, "files": {}}),
        _record(lambda r: {**r, "files": []}),
        _record(lambda r: {**r, "files": {"a.txt": r["files"]["a.txt"]}}),  # type: ignore[index]
        _record(lambda r: {name: value for name, value in r.items() if name != "files"}),
        _record(lambda r: [r]),
        _record(lambda r: None),
    ],
)
def test_damage_is_noticed(store: Store, damage: Callable[[Path], None]) -> None:
    damage(finished(store))
    assert made_again(store)
    assert not made_again(store)


def test_a_half_written_record_is_noticed(store: Store) -> None:
    path = finished(store) / "stage.json"
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert made_again(store)


def test_files_of_others_in_a_finished_stage_do_no_harm(store: Store) -> None:
    (finished(store) / ".DS_Store").write_bytes(b"finder")
    assert not made_again(store)


@pytest.mark.parametrize("error", [DataError("bad row"), KeyboardInterrupt(), ValueError("x")])
def test_nothing_of_a_failed_stage_is_visible(store: Store, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        (folder / "a.txt").write_text("part", encoding="utf-8")
        raise error

    finished(store)
    with pytest.raises(type(error)):
        store.stage("features", {}, fail)
    assert visible(store) == {"experts"}
    assert [path.parent.name for path in store.root.rglob("a.txt")] == ["kind"]


def test_a_failed_second_try_keeps_the_first_result(store: Store) -> None:
    folder = finished(store)

    def fail(_: Path) -> None:
        raise DataError("bad row")

    with pytest.raises(DataError):
        store.stage("experts/kind", {"x": 2}, fail)
    assert (folder / "a.txt").read_text(encoding="utf-8") == "whole"
    assert not made_again(store)


KILLED = """
    import os, sys
    from pathlib import Path
    from mocae.stages import store as module

    root, where = Path(sys.argv[1]), sys.argv[2]

    def die(*_, **__):
        os._exit(9)

    def make(folder):
        (folder / "a.txt").write_text("part")
        if where == "making":
            die()
        (folder / "deep").mkdir()
        (folder / "deep" / "b.bin").write_bytes(b"part")

    renames = []
    rename = Path.rename

    def dying_rename(self, target):
        renames.append(self)
        if where == f"before rename {len(renames)}":
            die()
        done = rename(self, target)
        if where == f"after rename {len(renames)}":
            die()
        return done

    Path.rename = dying_rename
    if where == "before the record":
        module.write_whole = die
    if where == "in the record":
        Path.replace = die
    if where == "removing the old":
        rmtree = module.shutil.rmtree
        module.shutil.rmtree = lambda path, **k: die() if renames else rmtree(path, **k)
    module.Store(root).stage("experts/kind", {"x": int(sys.argv[3])}, make)
    print("finished")
"""


def run_killed(store: Store, where: str, x: int) -> str:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(store.root), where, str(x)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    return done.stdout


@pytest.mark.parametrize("where", ["making", "before the record", "in the record", "before rename 1"])
def test_a_run_killed_before_the_end_leaves_nothing_finished(store: Store, where: str) -> None:
    run_killed(store, where, 1)
    assert visible(store) <= {"experts"}
    assert not list(store.root.glob("experts/*"))
    assert made_again(store)
    assert not made_again(store)


@pytest.mark.parametrize("where", ["making", "after rename 1", "before rename 2", "after rename 2", "removing the old"])
def test_a_run_killed_while_replacing_never_mixes_old_and_new(store: Store, where: str) -> None:
    finished(store)
    run_killed(store, where, 2)
    # Killed before the swap the old result still counts; in or after it, it is made again.
    assert made_again(store) is (where != "making")
    assert not made_again(store)
    store.clean()
    assert {path.name for path in store.root.iterdir()} == {"experts"}


def test_a_full_disk_says_what_to_do(store: Store) -> None:
    def full(folder: Path) -> None:
        (folder / "a.txt").write_text("part", encoding="utf-8")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    finished(store)
    expected = (
        r"features: could not be written \(No space left on device\)\. Free space or choose another --out; the same "
        "command goes on with what is finished"
    )
    with pytest.raises(ArtifactError, match=expected):
        store.stage("features", {}, full)
    assert not list((store.root / ".partial").iterdir())
    assert not made_again(store)


def test_a_full_disk_under_safetensors_says_so_too(store: Store) -> None:
    from safetensors import SafetensorError

    def fail(text: str) -> Callable[[Path], None]:
        def make(_: Path) -> None:
            raise SafetensorError(text)

        return make

    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(ArtifactError, match=r"could not be written .*No space left on device.*Free space"):
        store.stage("features", {}, fail(full))
    with pytest.raises(SafetensorError, match="not contiguous"):
        store.stage("features", {}, fail("tensor is not contiguous"))


def test_a_second_run_on_one_folder_is_refused(store: Store) -> None:
    code = "import sys; from pathlib import Path; from mocae.stages.store import Store\n"
    code += "with Store(Path(sys.argv[1])).locked(): print('locked')"
    with store.locked():
        done = subprocess.run(
            [sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "another run is writing this folder; wait for it, or give another --out" in done.stderr
        with pytest.raises(ArtifactError, match="another run is writing this folder"), Store(store.root).locked():
            pass
    with store.locked():  # free again
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"file/out: cannot be written \(Not a directory\); give another --out"):
        with Store(tmp_path / "file" / "out").locked():
            pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ArtifactError, match=r"cannot be written \(Permission denied\)"):
            with Store(tmp_path).locked():
                pass
        with pytest.raises(ArtifactError, match=r"could not be written \(Permission denied\)"):
            Store(tmp_path).stage("s", {}, Maker())
    finally:
        tmp_path.chmod(0o700)


def test_clean_keeps_the_stages(store: Store) -> None:
    finished(store)
    store.work("experts/kind", {}).mkdir(parents=True)
    (store.root / ".partial" / "x").mkdir(parents=True)
    store.clean()
    assert {path.name for path in store.root.iterdir()} == {"experts"}


@pytest.mark.parametrize(
    ("name", "folder"),
    [("base", "base"), ("expert:honesty", "expert__honesty"), ("alignx, T = 1", "alignx__T___1"), ("a/../b", "a_.._b")],
)
def test_a_system_name_is_one_part_of_a_path(name: str, folder: str) -> None:
    assert folder_name(name) == folder


@pytest.mark.parametrize("damage", [_flip, _truncate, _remove, _no_record])
def test_a_stage_that_changed_after_it_was_finished_is_not_read(store: Store, damage: Callable[[Path], None]) -> None:
    stage = store.stage("experts/kind", {"x": 1}, Maker())
    damage(stage.path)
    with pytest.raises(ArtifactError, match=r"(has changed|is missing) since the run finished it"):
        assert stage.folder


def test_what_was_made_from_other_bits_is_made_again(store: Store) -> None:
    def timed(text: str, seconds: str) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            (folder / "a.txt").write_text(text, encoding="utf-8")
            (folder / "training.json").write_text(seconds, encoding="utf-8")

        return make

    first = store.stage("s", {"x": 1}, timed("one", "1.5"))
    _remove(first.path)
    same = store.stage("s", {"x": 1}, timed("one", "1.7"))  # only slower
    _remove(same.path)
    other = store.stage("s", {"x": 1}, timed("two", "1.5"))
    assert first.key == same.key != other.key


@pytest.mark.parametrize("name", ["/dev/zero", "../../../../dev/zero", "deep/../../a", "zero", "pipe"])
def test_a_record_with_its_seal_made_good_leads_nowhere(store: Store, name: str) -> None:
    folder = finished(store)
    record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    record["files"][name] = "0" * 64
    del record["seal"]
    (folder / "stage.json").write_text(json.dumps({**record, "seal": key_of(record)}), encoding="utf-8")
    if name == "zero":
        (folder / name).symlink_to("/dev/zero")
    if name == "pipe":
        os.mkfifo(folder / name)
    with pytest.raises(ArtifactError, match=r"has changed|is missing|a link|FIFO"):
        refuse_changed(folder)
    assert made_again(store)
