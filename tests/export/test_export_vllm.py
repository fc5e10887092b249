"""vLLM: the command of an export starts it from any folder."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import torch

from mocae.export import Bundle, export_vllm

ALPHA = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]] * 2)


def started(command: str, at: Path, path: Path) -> list[str]:
    """Return folder and arguments that `vllm` was started with; `path` is where a stand-in for it is put."""
    (path / "vllm").write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    (path / "vllm").chmod(0o755)
    env = {"PATH": f"{path}:/usr/bin:/bin", "CDPATH": str(path.parent)}
    done = subprocess.run(["sh", command, "--port", "1"], cwd=at, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_command_works_from_any_folder(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("bin", "models/it's", "out/a b"):
        (tmp_path / name).mkdir(parents=True)
    bundle = replace(bundle, base_name="models/it's")
    folder = tmp_path / "out" / "a b"
    export_vllm(bundle, folder, alpha=ALPHA, n_mixtures=3)
    where, *words = started("out/a b/serve.sh", tmp_path, tmp_path / "bin")
    assert where == str(folder)
    assert words[:2] == ["serve", str(tmp_path / "models" / "it's")]  # as it was seen from the caller's folder
    assert words[-2:] == ["--port", "1"]
    adapters = [json.loads(word) for word in words if word.startswith("{")]
    assert [adapter["name"] for adapter in adapters] == [f"mixture-0{i}" for i in range(3)]
    assert all((Path(where) / adapter["path"] / "adapter_model.safetensors").is_file() for adapter in adapters)
    assert started("serve.sh", folder, tmp_path / "bin")[2] == "models/it's"  # nothing there: a name on the Hub
    (folder / "base").mkdir()
    assert started("out/a b/serve.sh", tmp_path, tmp_path / "bin")[2] == "base"
