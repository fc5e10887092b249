from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mocae
import mocae.errors
from mocae.cli import main

Command = Callable[..., tuple[int, str, str]]


def test_help_and_version_exit_0(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in ("run", "validate", "plan", "chat", "ls"))
    assert command("--version")[:2] == (0, f"mocae {mocae.__version__}\n")


@pytest.mark.parametrize("name", ["run", "validate", "plan", "chat", "ls"])
def test_each_command_teaches_with_an_example(command: Command, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.count(f"mocae {name} ") >= 2


@pytest.mark.parametrize(
    "words", [(), ("nothing",), ("run",), ("run", "x.yaml"), ("run", "--no-such-flag"), ("ls", "cats")]
)
def test_wrong_usage_exits_2(command: Command, words: tuple[str, ...]) -> None:
    assert command(*words)[0] == 2


def test_an_error_of_ours_is_one_line(command: Command) -> None:
    code, out, err = command("validate", "none.yaml")
    assert (code, out) == (2, "")
    assert err == "error: none.yaml: cannot be read: No such file or directory. Accepted: a YAML recipe\n"


def test_debug_adds_the_traceback(command: Command) -> None:
    code, _, err = command("--debug", "validate", "none.yaml")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: none.yaml: cannot be read: No such file or directory. Accepted: a YAML recipe\n")


def test_libraries_that_are_merely_installed_say_nothing(command: Command) -> None:
    assert command("ls", "formats")[0] == 0
    assert not any(logging.getLogger(name).isEnabledFor(logging.WARNING) for name in ("torchao", "bitsandbytes"))


def test_what_the_hub_says_is_said_once() -> None:
    code = (
        "from mocae.cli.app import app; import logging; app(['ls', 'formats'], standalone_mode=False);"
        "import huggingface_hub.utils; logging.getLogger('huggingface_hub.utils._http').warning('Retrying')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("Retrying") == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    fake(monkeypatch, OSError(number, os.strerror(number), "some/file"))
    expected = f"error: some/file: {os.strerror(number)}; free space or give another folder\n"
    assert command("validate", "x.yaml") == (1, "", expected)


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, OSError(errno.EBADF, "a defect"))
    with pytest.raises(OSError, match="a defect"):
        main(["validate", "x.yaml"])


def fake(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("mocae.pipelines.check.recipe.load_recipe", fail)


def test_a_failed_run_exits_1(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, mocae.errors.TrainingError("loss is nan at step 3"))
    assert command("validate", "x.yaml") == (1, "", "error: loss is nan at step 3\n")


def test_a_missing_extra_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, ModuleNotFoundError("No module named 'sklearn.svm'", name="sklearn.svm"))
    expected = "error: sklearn.svm is not installed; run: pip install 'mocae[eval]'\n"
    assert command("validate", "x.yaml") == (1, "", expected)


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, ModuleNotFoundError("No module named 'mocae.nowhere'", name="mocae.nowhere"))
    with pytest.raises(ModuleNotFoundError, match=r"mocae\.nowhere"):
        main(["validate", "x.yaml"])


def test_python_m_mocae_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mocae", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"mocae {mocae.__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_in_any_encoding_is_no_traceback_and_json_stays_json(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"unsafe": 1, "category": "caf\u00e9 \u2191 \U0001f600"}, {"unsafe": 0, "category": "plain"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [sys.executable, "-m", "mocae", "score", "unsafe-rate", str(file), "--json"]
    done = subprocess.run(words, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    written = "latin-1" if encoding == "latin-1" else "utf-8"  # click takes an ASCII terminal for one set up wrongly
    categories = json.loads(done.stdout.decode(written))["tables"]["by_category"]
    assert set(categories) == {"caf\u00e9 \u2191 \U0001f600", "plain"}


def test_a_path_that_is_no_utf8_is_named_in_one_line() -> None:
    words = [sys.executable, "-m", "mocae", "validate", b"caf\xe9.yaml"]
    done = subprocess.run(words, env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(rb"error: caf\udce9.yaml: cannot be read")


@pytest.mark.parametrize("words", [("compare", "a", "b"), ("eval", "a"), ("build",), ("judge", "train", "a")])
@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_a_seed_no_generator_takes_is_wrong_usage(command: Command, words: tuple[str, ...], seed: str) -> None:
    code, _, err = command(*words, "--seed", seed)
    assert code == 2
    assert "'--seed'" in err
    assert "than or equal to" in err
