"""vLLM: the command of an export starts it from any folder, and it answers as the policy does, token by token."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from export_for_tests import bundle_on
from mocae.bank import ExpertBank
from mocae.export import Bundle, export_vllm
from mocae.models import LoadedBase, load_base
from mocae.policies import CodeBook
from tiny import ATTENTION, tiny_adapter, tiny_llama, tiny_tokenizer
from vllm_for_tests import vllm_server

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


def greedy(bundle: Bundle, ids: list[int], weights: torch.Tensor) -> list[int]:
    """Return twelve tokens of the policy's greedy answer."""
    bank = ExpertBank.attach(bundle.base.model, bundle.experts)
    batch = torch.tensor([ids])
    try:
        with torch.no_grad(), bank.weights(weights):
            out = bundle.base.model.generate(
                batch, max_new_tokens=12, do_sample=False, eos_token_id=None, attention_mask=torch.ones_like(batch)
            )
    finally:
        bank.detach()
    found: list[int] = out[0, len(ids) :].tolist()
    return found


@pytest.mark.slow
def test_vllm_gives_the_policys_tokens(tmp_path: Path) -> None:
    root = tmp_path / "base"
    tiny_llama(layers=3, hidden=256, max_position_embeddings=256).save_pretrained(root)  # heads of 64: vLLM's sizes
    tiny_tokenizer().save_pretrained(root)
    base: LoadedBase = load_base(root, dtype="fp32", device="cpu")
    adapters = {
        "all": tiny_adapter(base.model, tmp_path / "all", seed=1, r=4, lora_alpha=5),
        "rslora": tiny_adapter(base.model, tmp_path / "rslora", seed=2, r=3, targets=ATTENTION, use_rslora=True),
        "some": tiny_adapter(base.model, tmp_path / "some", seed=3, targets=("up_proj",), layers_to_transform=[1, 2]),
    }
    bundle = bundle_on(load_base(root, dtype="fp32", device="cpu"), root, adapters)
    folder = tmp_path / "vllm"
    folder.mkdir()
    export_vllm(bundle, folder, alpha=ALPHA, n_mixtures=3)
    book = CodeBook.load(folder / "code_book.json")
    prompts = [bundle.base.tokenizer(text).input_ids for text in ("aaaa", "bbbbb", "who?", "Q: 7\nA:")]
    weights = {str(root): torch.zeros(3), **dict(zip(book.names, book.mixtures, strict=True))}
    wanted = {name: [greedy(bundle, ids, row) for ids in prompts] for name, row in weights.items()}
    with vllm_server(folder / "serve.sh", tmp_path / "log") as url:
        found = {name: [asked(url, name, ids) for ids in prompts] for name in weights}
    assert found == wanted
    assert len({tuple(rows[0]) for rows in wanted.values()}) == len(weights)  # or the experts were not tested at all


def asked(url: str, model: str, ids: list[int]) -> list[int]:
    body = {"model": model, "prompt": ids, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    answer = httpx.post(f"{url}/completions", json={**body, "return_token_ids": True}, timeout=60)
    assert answer.status_code == 200, answer.text
    tokens: list[int] = answer.json()["choices"][0]["token_ids"]
    return tokens
