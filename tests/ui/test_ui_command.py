from __future__ import annotations

import builtins
import socket
from pathlib import Path
from typing import Any

import pytest

from mocae.cli.app import main


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit code and what was written on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(["ui", *words])
    return int(ended.value.code or 0), capsys.readouterr().err


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, str(tmp_path), "--port", "0")
    assert (code, "no manifest.json, so this is no finished run" in error) == (1, True)


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, error = said(capsys, str(tmp_path), "--port", port)
    assert (code, f"cannot listen on 127.0.0.1:{port}" in error, "try another --port" in error) == (2, True, True)


def test_other_machines_must_be_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = said(capsys, str(tmp_path), "--host", "0.0.0.0")
    assert (code, "add --open if that is meant" in error) == (2, True)


def test_a_missing_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_gradio(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == "gradio" or name == "mocae.ui.site":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_gradio)
    code, error = said(capsys, str(tmp_path))
    assert (code, error.strip()) == (1, "error: gradio is not installed; run: pip install 'mocae[ui]'")
