"""llama.cpp's own server: requests with unlike weights, one after another and at once, get the policy's tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from backend_for_tests import llama_server, running
from mocae.bank import ExpertBank
from mocae.errors import ServingError
from mocae.export import Bundle, export_gguf, load_chooser, write_manifest
from mocae.serving.gateway import prove_backend

pytestmark = pytest.mark.slow

PROMPTS = ("Q: Who goes there?\nA:", "Q: Who goes there, and where to?\nA:", "a long beginning that all share, " * 5)
MIXTURES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.7, -0.2, 0.4), (0.0, 0.0, 0.0))
FILLER = "something else, so that the slot is needed: " * 5
PROTECTED = ("--cache-ram", "0")
N_TOKENS = 8


@pytest.fixture
def exported(bundle: Bundle, tmp_path: Path) -> Path:
    folder = tmp_path / "gguf"
    folder.mkdir()
    write_manifest(folder, bundle, to="gguf", details=export_gguf(bundle, folder, number_format="f32"))
    return folder


@contextmanager
def server(folder: Path, *words: str, loaded: Sequence[str] = ("all", "rslora", "pattern")) -> Iterator[str]:
    adapters = [word for name in loaded for word in ("--lora", str(folder / f"{name}.gguf"))]
    start = [llama_server(), "-m", str(folder / "base.gguf"), *adapters, "--lora-init-without-apply"]
    more = ["--host", "127.0.0.1", "--port", "{port}", "-c", "1024", "-t", "1", "--no-webui", *words]
    with running([*start, *more], folder / "server.log") as url:
        yield url


def policys_tokens(bundle: Bundle) -> dict[tuple[str, Sequence[float]], list[int]]:
    """What the policy says to each prompt with each mixture."""
    found, base = {}, bundle.base
    bank = ExpertBank.attach(base.model, bundle.experts)
    try:
        for prompt in PROMPTS:
            ids = base.tokenizer(prompt, return_tensors="pt").input_ids
            for weights in MIXTURES:
                with torch.no_grad(), bank.weights(torch.tensor(weights)):
                    out = base.model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        max_new_tokens=N_TOKENS,
                        do_sample=False,
                        eos_token_id=None,
                    )
                found[prompt, weights] = out[0, ids.shape[1] :].tolist()
    finally:
        bank.detach()
    return found


def ask(url: str, prompt: str, weights: Sequence[float], **more: Any) -> list[int]:
    lora = [{"id": i, "scale": weight} for i, weight in enumerate(weights)]
    body = {"prompt": prompt, "n_predict": N_TOKENS, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    found: list[int] = httpx.post(f"{url}/completion", json={**body, "lora": lora, **more}, timeout=120).json()[
        "tokens"
    ]
    return found


@pytest.mark.parametrize("slots", [1, 3])
def test_no_request_gets_what_was_read_with_other_weights(bundle: Bundle, exported: Path, slots: int) -> None:
    wanted = policys_tokens(bundle)
    assert len({tuple(tokens) for tokens in wanted.values()}) == len(wanted)  # or nothing could be told apart
    asked = [*wanted] * 6
    random.Random(0).shuffle(asked)
    for _ in range(2):  # started again, it remembers nothing
        with server(exported, "-np", str(slots), *PROTECTED) as url, ThreadPoolExecutor(slots) as pool:

            def one(case: tuple[int, tuple[str, Sequence[float]]], url: str = url) -> list[int]:
                number, (prompt, weights) = case
                if number % 5 == 0:  # takes the slot from whoever had it
                    ask(url, FILLER, MIXTURES[number % 4], cache_prompt=False)
                return ask(url, prompt, weights, cache_prompt=False)

            assert list(pool.map(one, enumerate(asked))) == [wanted[case] for case in asked]


def test_the_gateways_proof_holds_there_and_fails_without_adapters(exported: Path) -> None:
    chooser = load_chooser(exported)
    with server(exported, *PROTECTED) as url:
        prove_backend(chooser, f"{url}/v1", key=None, wait_s=10, on_wait=lambda _: None)
    for loaded in ((), ("all",)):
        with server(exported, *PROTECTED, loaded=loaded) as url, pytest.raises(ServingError):
            prove_backend(chooser, f"{url}/v1", key=None, wait_s=10, on_wait=lambda _: None)
