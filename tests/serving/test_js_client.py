"""The official JavaScript client, where node and its package are: `npm ci --prefix tests/serving/js`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from mocae.serving.app import Settings
from mocae.serving.guard import Access
from serving_for_tests import TinyArtifact, idle, live, served

FOLDER = Path(__file__).parent / "js"
KEY = "a-key-of-the-tests"


def run_client(url: str) -> dict[str, Any]:
    """What the client got; skips where it cannot run."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "node_modules" / "openai").is_dir():
        pytest.skip(f"node or its package is not there; run: npm ci --prefix {FOLDER}")
    done = subprocess.run(
        [node, str(FOLDER / "client.mjs"), url, KEY], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    got: dict[str, Any] = json.loads(done.stdout)
    return got


def test_the_javascript_client_lists_asks_streams_steers_leaves_and_is_refused(artifact: TinyArtifact) -> None:
    with live(served(artifact), Settings(access=Access(keys=[KEY]))) as url:
        got = run_client(url)
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            assert idle(client)
            assert "mocae_cancelled_total 1.0" in client.get("/metrics").text.splitlines()
    assert got["models"][0] == "alignx"
    assert "expert:honest" in got["models"]
    [choice] = got["whole"]["choices"]
    assert list(choice["routing"]["weights"]) == list(artifact.axes)
    assert all(len(token["top_logprobs"]) == 2 for token in choice["logprobs"]["content"])
    assert got["streamed"] == {
        "text": choice["message"]["content"],
        "reason": choice["finish_reason"],
        "routing": choice["routing"],
        "usage": got["whole"]["usage"],
    }
    plain, steered = (reply["choices"][0]["routing"]["weights"]["honest"] for reply in (got["whole"], got["steered"]))
    assert steered > plain
    assert got["completion"]["object"] == "text_completion"
    assert got["pieces"] == 3
    assert {name: (error["kind"], error["status"], error["param"]) for name, error in got["errors"].items()} == {
        "model": ("NotFoundError", 404, "model"),
        "messages": ("BadRequestError", 400, "messages"),
        "steer": ("BadRequestError", 400, "steer"),
    }
    assert "Did you mean 'alignx'?" in got["errors"]["model"]["message"]
