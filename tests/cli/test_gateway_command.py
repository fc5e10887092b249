"""What `mocae gateway` refuses before it reads an export, which may take minutes."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

Command = Callable[..., tuple[int, str, str]]
BACKEND = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "ftp://127.0.0.1/v1"], "--backend 'ftp://127.0.0.1/v1': not an address; give one as http://"),
        (["--backend", "http://me:pass@127.0.0.1/v1"], "--backend: a name or password stands before '127.0.0.1/v1'"),
        (["--backend", "foo"], "--backend 'foo': not an address"),
        (
            ["--backend", BACKEND, "--host", "0.0.0.0"],
            "--host 0.0.0.0 lets other machines in and there are no API keys",
        ),
        (["--backend", BACKEND, "--api-keys", "nowhere.txt"], "--api-keys nowhere.txt: cannot be read"),
        (["--backend", BACKEND, "--host", "192.0.2.1", "--no-keys"], "cannot listen on 192.0.2.1:8080"),
    ],
)
def test_wrong_options_are_refused_first(
    words: list[str], message: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOCAE_API_KEYS", raising=False)
    code, out, err = command("gateway", "no-such-export", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")


def test_a_port_in_use_is_told_first(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = command("gateway", "no-such-export", "--backend", BACKEND, "--port", str(port))
    assert code == 2
    assert err.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use; try another --port")


def test_a_missing_export_is_told(command: Command) -> None:
    code, _, err = command("gateway", "no-such-export", "--backend", BACKEND, "--port", "0")
    assert code in (1, 2)
    assert err.startswith("error: no-such-export")
