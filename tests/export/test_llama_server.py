"""llama.cpp's own server: requests with unlike weights, one after another and at once, get the policy's tokens."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from backend_for_tests import llama_server, running
from mocae.bank import ExpertBank
from mocae.errors import ServingError
from mocae.export import Bundle, export_gguf, load_chooser, write_manifest
from mocae.prompts import FORMATS
from mocae.serving.conversation import Turn, conversation_tokens
from mocae.serving.gateway import prove_backend

pytestmark = pytest.mark.slow

PROMPTS = ("Q: Who goes there?\nA:", "Q: Who goes there, and where to?\nA:", "a long beginning that all share, " * 5)
MIXTURES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.7, -0.2, 0.4), (0.0, 0.0, 0.0))
FILLER = "something else, so that the slot is needed: " * 5
N_TOKENS = 8
EXPERTS = ("all", "rslora", "pattern")
EXACT = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
"""Keys and values as the policy has them: in the server's f16 the tiny model's closest choice (0.001) goes wrong."""
LEFT_OUT = os.environ.get("LLAMA_LEAVE_OUT", "").split(",")
"""To see what the protection is for: `--cache-ram`, `cache_prompt` or both, and how many answers are wrong then."""
PROTECTED = () if "--cache-ram" in LEFT_OUT else ("--cache-ram", "0")
SENT = {} if "cache_prompt" in LEFT_OUT else {"cache_prompt": False}

Case = tuple[str, Sequence[float]]


@pytest.fixture
def exported(bundle: Bundle, tmp_path: Path) -> Path:
    return export(bundle, tmp_path / "gguf")


def export(bundle: Bundle, folder: Path) -> Path:
    folder.mkdir()
    write_manifest(folder, bundle, to="gguf", details=export_gguf(bundle, folder, number_format="f32"))
    return folder


@contextmanager
def server(folder: Path, *words: str, loaded: Sequence[str] = EXPERTS) -> Iterator[str]:
    files = ",".join(str(folder / f"{name}.gguf") for name in loaded)
    start = [llama_server(), "-m", str(folder / "base.gguf"), *(["--lora", files] if loaded else [])]
    more = [
        "--lora-init-without-apply",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        "-c",
        "1024",
        "-t",
        "1",
        "--no-webui",
    ]
    with running([*start, *more, *EXACT, *words], folder / "server.log") as url:
        yield url


def answers_of_policy(bundle: Bundle) -> dict[Case, list[int]]:
    """Return what the policy answers to each prompt with each mixture."""
    answers: dict[Case, list[int]] = {}
    bank = ExpertBank.attach(bundle.base.model, bundle.experts)
    try:
        for prompt in PROMPTS:
            ids = bundle.base.tokenizer(prompt, return_tensors="pt").input_ids
            for weights in MIXTURES:
                with torch.no_grad(), bank.weights(torch.tensor(weights)):
                    out = bundle.base.generate(ids, max_new_tokens=N_TOKENS, do_sample=False, eos_token_id=None)
                answers[prompt, weights] = out[0, ids.shape[1] :].tolist()
    finally:
        bank.detach()
    return answers


def ask(url: str, prompt: str, weights: Sequence[float], **more: Any) -> list[int]:
    lora = [{"id": i, "scale": weight} for i, weight in enumerate(weights)]
    body = {"prompt": prompt, "n_predict": N_TOKENS, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    tokens: list[int] = httpx.post(f"{url}/completion", json={**body, "lora": lora, **more}, timeout=120).json()[
        "tokens"
    ]
    return tokens


def ask_all(url: str, cases: Sequence[Case], *, at_once: int, **more: Any) -> list[list[int]]:
    """Return the answers to many requests, some of which come after one that takes the slot of whoever had it."""

    def one(numbered: tuple[int, Case]) -> list[int]:
        number, (prompt, weights) = numbered
        if number % 5 == 0:
            ask(url, FILLER, MIXTURES[number // 5 % 4], **more)
        return ask(url, prompt, weights, **more)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, enumerate(cases)))


def shuffled(answers: dict[Case, list[int]]) -> list[Case]:
    cases = [*answers] * 6
    random.Random(0).shuffle(cases)
    return cases


@pytest.mark.parametrize("slots", [("-np", "1"), ("-np", "3"), ()], ids=["one slot", "three", "its own choice"])
@pytest.mark.parametrize("at_once", [1, 6])
def test_no_request_gets_what_was_read_with_other_weights(
    bundle: Bundle, exported: Path, slots: tuple[str, ...], at_once: int
) -> None:
    wanted = answers_of_policy(bundle)
    assert len({tuple(tokens) for tokens in wanted.values()}) == len(wanted)  # or nothing could be told apart
    cases = shuffled(wanted)
    for _ in range(2):  # started again, it remembers nothing
        with server(exported, *slots, *PROTECTED) as url:
            answers = ask_all(url, cases, at_once=at_once, **SENT)
        wrong = [case for case, tokens in zip(cases, answers, strict=True) if tokens != wanted[case]]
        assert not wrong, f"{len(wrong)} of {len(cases)} answers are not the policy's"


def test_the_gateways_proof_holds_there_and_fails_without_adapters(exported: Path) -> None:
    chooser = load_chooser(exported)
    with server(exported, *PROTECTED) as url:
        prove_backend(chooser, f"{url}/v1", key=None, wait_s=10.0, on_wait=print)
    for loaded in ((), ("all",)):
        with server(exported, *PROTECTED, loaded=loaded) as url, pytest.raises(ServingError, match="pattern"):
            prove_backend(chooser, f"{url}/v1", key=None, wait_s=10.0, on_wait=print)


@pytest.mark.parametrize("prompt_format", ["plain", "alpaca", "chat"])
def test_a_chat_is_read_as_the_experts_were_trained(bundle: Bundle, prompt_format: str, tmp_path: Path) -> None:
    talk = [("system", "Be brief."), ("user", "Who {{ goes }} there?\n 'You'"), ("assistant", "I."), ("user", "Why?")]
    folder = export(replace(bundle, prompt_format=prompt_format), tmp_path / "gguf")
    tokenizer = bundle.base.tokenizer
    with server(folder, *PROTECTED) as url:
        for turns in (talk[:2], talk[1:2], talk[1:], talk):
            messages = [{"role": role, "content": text} for role, text in turns]
            text = httpx.post(f"{url}/apply-template", json={"messages": messages}).json()["prompt"]
            read = [Turn(role, text) for role, text in turns]  # type: ignore[arg-type]
            wanted = conversation_tokens(read, prompt_format=FORMATS.get(prompt_format), tokenizer=tokenizer)
            assert text.rstrip(" ") == tokenizer.decode(wanted)
