"""llama.cpp for tests: node-llama-cpp's prebuilt CPU binaries, where they are installed.

    npm install --prefix .node --omit=optional --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1

in the project's folder, or anywhere else with the environment variable MOCAE_NODE_LLAMA_CPP naming that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[1]
_HELPER = Path(__file__).parent / "export" / "llama_cpp.mjs"


def answers_of_llama_cpp(model: Path, cases: Sequence[dict[str, Any]]) -> list[dict[str, list[int]]]:
    """Return what llama.cpp says to each case: the ids of the prompt and of the greedy answer; skips without it."""
    folder = Path(os.environ.get("MOCAE_NODE_LLAMA_CPP", _ROOT / ".node"))
    module = folder / "node_modules" / "node-llama-cpp" / "dist" / "index.js"
    node = shutil.which("node")
    if node is None or not module.is_file():
        pytest.skip(f"node-llama-cpp is not installed in {folder}; see {Path(__file__).name}")
    job = {"module": str(module), "model": str(model), "cases": list(cases)}
    done = subprocess.run(
        [node, str(_HELPER)], input=json.dumps(job), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, list[int]]] = json.loads(done.stdout)
    return found
