"""From a prompt to what its request must carry: the router of an export, read by the first layers of the base model."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mocae.calibration import AlignXRouter
from mocae.errors import ArtifactError, ConfigError, DataError
from mocae.experts import pooled_states
from mocae.export.bundle import read_export
from mocae.models import LoadedBase, count_tokens, decoder_layers, load_recorded
from mocae.policies import CodeBook, Policy, PromptBatch, Reading, RoutedPolicy, Steering, choose, named_weights
from mocae.prompts import FORMATS, ChatFormat, PromptFormat

__all__ = ["Choice", "Chooser", "load_chooser"]


@dataclass(frozen=True, slots=True)
class Choice:
    """How one request is answered.

    Attributes:
        weights: expert -> weight in force at the backend.
        fields: what the request's body carries for it.
        name: of the mixture, "" where weights are exact.
    """

    weights: dict[str, float]
    fields: dict[str, Any]
    name: str


class Chooser:
    """Routes prompts for a backend that holds the experts.

    Args:
        base: base model up to the layer the router reads; more layers are never run.
        policy: from hidden states to weights.
        experts: names, in the order of weights.
        prompt_format: how a chat message becomes the text the router reads.
        book: mixtures the backend holds as adapters; None: the backend takes the weights themselves (llama.cpp).
    """

    def __init__(
        self,
        base: LoadedBase,
        policy: Policy,
        *,
        experts: tuple[str, ...],
        prompt_format: PromptFormat,
        book: CodeBook | None,
    ) -> None:
        self.base = base
        self.policy = policy
        self.experts = experts
        self.prompt_format = prompt_format
        self.book = book
        self._lock = threading.Lock()  # one model, one pass at a time

    @property
    def mixtures(self) -> tuple[str, ...]:
        """Names of the mixtures the backend knows, empty where it takes weights."""
        return () if self.book is None else self.book.names

    @property
    def proofs(self) -> dict[str, dict[str, Any]]:
        """Fields of requests that a backend must answer differently, by name; the first is without experts."""
        if self.book is not None:
            return {"no expert": {}, **{name: {"model": name} for name in self.book.names}}
        scales = {"no expert": [0.0] * len(self.experts)}
        scales |= {name: [float(name == other) for other in self.experts] for name in self.experts}
        return {name: {**_llama_cpp(each), "n_probs": 5} for name, each in scales.items()}

    def choose(
        self,
        prompt: str,
        *,
        is_chat: bool,
        steering: Steering | None = None,
    ) -> Choice:
        """Return how to answer a prompt.

        Args:
            prompt: the user's last message, or the whole text of a completion.
            is_chat: whether it is a message, which is formatted as the router's calibration prompts were.
            steering: what is said about the weights; where the backend holds mixtures, the nearest one answers.

        Raises:
            DataError: the prompt is empty, or longer than the base model can read.
            ConfigError: an unknown expert.
        """
        policy = choose(self.policy, self.experts, steering)
        alpha = self._route(policy, prompt, is_chat=is_chat)
        if self.book is None:
            scales = [round(w, 6) for w in alpha[0].tolist()]
            return Choice(named_weights(self.experts, alpha[0].cpu()), _llama_cpp(scales), "")
        index = int(self.book.nearest(alpha)[0])
        mixed = named_weights(self.experts, self.book.mixtures[index])
        return Choice(mixed, {"model": self.book.names[index]}, self.book.names[index])

    def _route(self, policy: Policy, prompt: str, *, is_chat: bool) -> torch.Tensor:
        reading = policy.reads
        if reading is None:
            return policy.route(PromptBatch([""]))
        tokenizer = self.base.tokenizer
        text = self.prompt_format.format_prompt(prompt, injection=None, tokenizer=tokenizer) if is_chat else prompt
        with self._lock:
            self._refuse_long(text)
            pooled = pooled_states(
                self.base.model,
                tokenizer,
                [text],
                layer=reading.layer,
                pool=reading.pool,  # type: ignore[arg-type]  # checked by Reading
                label="",
            )
            return policy.route(PromptBatch([""], pooled))

    def _refuse_long(self, text: str) -> None:
        context = self.base.description.context
        n = count_tokens(self.base.tokenizer, text, enough=context)
        if n > context:
            raise DataError(
                f"the prompt has at least {n} tokens; the model's context is {context} tokens, so send less"
            )


def load_chooser(folder: Path, *, base_model: str | None = None, device: str | None = None) -> Chooser:
    """Return the chooser of an export for vLLM or llama.cpp.

    Of the base model only the layers below the router are kept.

    Raises:
        ArtifactError: the folder is no export, or has changed since it was written.
        ConfigError: an export without router, or of a form no backend routes by.
        ModelMismatchError: the base model is not the one the router was fitted on.
    """
    manifest = read_export(folder)
    if manifest["format"] not in ("vllm", "gguf"):
        raise ConfigError(
            f"{folder}: an export to {manifest['format']}; the gateway stands in front of --to vllm and --to gguf"
        )
    if manifest["router"] is None:
        raise ConfigError(f"{folder}: no router in it; export an artifact that has one (system 'alignx')")
    prompt_format = FORMATS.get(manifest["prompt_format"])
    base = load_recorded(
        manifest["base"],
        where=folder,
        chat=isinstance(prompt_format, ChatFormat),
        device=device,
        base_model=base_model,
    )
    router = AlignXRouter.load(folder / "router")
    experts = tuple(manifest["experts"])
    book = CodeBook.load(folder / "code_book.json") if manifest["format"] == "vllm" else None
    if router.axes != experts or (book is not None and book.experts != experts):
        raise ArtifactError(f"{folder}: router or code book are of other experts than {list(experts)}; export again")
    keep_layers(base, Reading(router.layer, router.pool))
    return Chooser(
        base,
        RoutedPolicy(router, **manifest["router"]["options"]),
        experts=experts,
        prompt_format=prompt_format,
        book=book,
    )


def _llama_cpp(scales: list[float]) -> dict[str, Any]:
    """Return what llama.cpp's server must be sent: every adapter's weight, and no keys and values of other weights.

    Its cache of prompts may hand the keys and values of one set of weights to a request with another
    (github.com/ggml-org/llama.cpp/issues/26207, open).
    """
    return {"lora": [{"id": i, "scale": scale} for i, scale in enumerate(scales)], "cache_prompt": False}


def keep_layers(base: LoadedBase, reading: Reading) -> None:
    """Drop the layers a reading does not need."""
    del decoder_layers(base.model)[max(1, reading.layer) :]
