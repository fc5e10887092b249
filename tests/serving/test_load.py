"""Many clients at once; figures of a run on a quiet machine stand in docs/serving.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving_for_tests import TinyArtifact, live, served

CLIENTS, REQUESTS = 32, 2000


@pytest.mark.slow
def test_many_clients_get_the_answers_of_one_without_errors_faster_and_memory_stays(
    artifact: TinyArtifact, tmp_path: Path
) -> None:
    prompts = [{"prompt": f"Q: {'which ' * (i % 7)}{i}?"} for i in range(60)]
    (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in prompts), encoding="utf-8")
    command = [
        sys.executable,
        str(Path(__file__).with_name("load.py")),
        str(tmp_path),
        *("--clients", str(CLIENTS), "--requests", str(REQUESTS), "--alone", "200", "--rounds", "1"),
        *("--memory", str(2 * REQUESTS), "--pid", str(os.getpid())),
    ]
    with live(served(artifact)) as url:
        done = subprocess.run([*command, "--url", url], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    [measured] = result["rounds"]
    assert (measured["alone"]["errors"], measured["many"]["errors"], measured["many"]["requests"]) == (0, 0, REQUESTS)
    assert (result["answers_that_differ"], result["answers_compared"]) == (0, 200)
    assert result["throughput_ratio"] > 1.3  # here client, server and test share one process and one small model
    _, warm, last = result["memory"]
    assert sum(point["errors"] for point in result["memory"][1:]) == 0
    assert last["rss_mib"] < 1.05 * warm["rss_mib"]
