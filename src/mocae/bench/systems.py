"""The systems that are measured: how each is put together, and what it needs in force while it answers."""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mocae.bank import ExpertBank, LoraWeights
from mocae.bench.decoding import Cached, Decoder, Remembering
from mocae.bench.memory import read_bytes
from mocae.bench.shapes import random_router, random_tokenizer
from mocae.models import Beginning, LoadedBase, decoder_layers
from mocae.policies import Mixture, RoutedPolicy

__all__ = [
    "System",
    "Workbench",
    "base",
    "int8_base",
    "int8_stacked",
    "merged",
    "one_used",
    "resumed_routed",
    "routed",
    "stacked",
]

_KNOWN = 7 / 8
"""Share of a prompt that `resumed` knows: a system prompt before a question."""


@dataclass(frozen=True, slots=True)
class System:
    """One system, ready to be measured.

    Attributes:
        modules: the models it holds in memory.
        reads: bytes of weights that a decoding step of one prompt reads.
        decoder: starts a generation.
        context: what is in force while a batch of that size is answered.
        expert_bytes: memory of its experts, which every mixture pays.
        tensors: what else it holds, asked for while `context` is in force.
        max_repeats: fewer repeats for a system that is very slow, None = as many as asked for.
        max_batch_tokens: new tokens of a whole batch such a system is timed for at most, at least two an answer; its
            time is scaled up to all tokens. None = all.
        note: what a reader of its row must know.
    """

    modules: tuple[nn.Module, ...]
    reads: int
    decoder: Callable[[], Decoder]
    context: Callable[[int], AbstractContextManager[Any]] = lambda batch: nullcontext()
    expert_bytes: int = 0
    tensors: Callable[[], Iterable[Tensor]] = tuple
    max_repeats: int | None = None
    max_batch_tokens: int | None = None
    note: str = ""


class Workbench:
    """What systems are built from: the base model, the experts, and the experts as PEFT folders.

    Args:
        base: the base model; systems take copies and never change it.
        experts: name -> expert.
        folders: name -> PEFT folder of the same expert.
    """

    def __init__(
        self, base: PreTrainedModel, experts: Mapping[str, LoraWeights], *, folders: Mapping[str, Path]
    ) -> None:
        self.base = base
        self.experts = experts
        self.folders = folders
        self._bank: ExpertBank | None = None

    @property
    def expert_bytes(self) -> int:
        """Memory of all experts in the dtype of the base model."""
        return sum(expert.n_parameters for expert in self.experts.values()) * self.base.dtype.itemsize

    def shared_copy(self) -> PreTrainedModel:
        """Return a copy of the base whose modules are its own and whose weights are the base's very tensors."""
        tensors = [*self.base.parameters(), *self.base.buffers()]
        return copy.deepcopy(self.base, memo={id(tensor): tensor for tensor in tensors})

    def bank(self) -> ExpertBank:
        """Return the bank on a copy of the base, one for all systems that use it."""
        if self._bank is None:
            self._bank = ExpertBank.attach(copy.deepcopy(self.base), self.experts)
        return self._bank

    def rows(self, batch: int, *, seed: int = 2) -> Float[Tensor, "B K"]:
        """Return weights that differ in every row, all positive."""
        generator = torch.Generator().manual_seed(seed)
        return (0.1 + torch.rand(batch, len(self.experts), generator=generator)).to(self.base.device)


def base(bench: Workbench) -> System:
    """Return the base model itself."""
    return System((bench.base,), read_bytes(bench.base), _decoder(bench.base))


def stacked(bench: Workbench) -> System:
    """Return the bank with one row of weights a prompt."""
    bank = bench.bank()
    note = "each row of a batch has weights of its own"
    return _banked(bank, lambda batch: bank.weights(bench.rows(batch)), note=note)


def one_used(bench: Workbench) -> System:
    """Return the bank where all rows use the first expert and no other."""
    bank = bench.bank()
    only = torch.zeros(1, len(bench.experts), device=bench.base.device)
    only[:, 0] = 1
    note = f"weights of {len(bench.experts) - 1} of {len(bench.experts)} experts are 0 in every row"
    return _banked(bank, lambda batch: bank.weights(only.expand(batch, -1)), note=note)


def int8_base(bench: Workbench) -> System:
    """Return the base with its linears in 8 bits, no expert."""
    model = _in_int8(bench)
    return System((model,), read_bytes(model), _decoder(model), note="torchao, weights alone in 8 bits")


def int8_stacked(bench: Workbench) -> System:
    """Return the bank over a base whose linears are in 8 bits; the experts are as they were."""
    bank = ExpertBank.attach(_in_int8(bench), bench.experts, fused=False)
    note = "the bank over a base with weights in 8 bits; no product is shared"
    return _banked(bank, lambda batch: bank.weights(bench.rows(batch)), note=note)


def _in_int8(bench: Workbench) -> PreTrainedModel:
    """Return a copy of the base whose linears but the head are quantised, as `base.quantization: torchao-int8` does."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = copy.deepcopy(bench.base)
    head = model.get_output_embeddings()
    config = Int8WeightOnlyConfig(version=2)
    quantize_(model, config, filter_fn=lambda module, _: isinstance(module, nn.Linear) and module is not head)
    return model


def merged(bench: Workbench) -> System:
    """Return the bank with one constant mixture folded into the base weights."""
    bank = bench.bank()
    note = "one mixture for all rows; holds the original weights too"
    merged = _banked(bank, lambda batch: bank.merged(bench.rows(1)[0]), note=note)
    return replace(merged, reads=read_bytes(bench.base))


def routed(bench: Workbench) -> System:
    """Return experts on the upper two thirds of the layers, weighed by a fitted AlignX router in the same pass.

    It is the `Mixture` that a run serves, with the default `top_k` of 1. The router is fitted on random states of the
    right shape: what it costs depends on the shape alone.
    """
    model = copy.deepcopy(bench.base)
    layers = decoder_layers(model)
    first = len(layers) // 3
    upper = {id(m) for layer in layers[first:] for m in layer.modules()}
    names = {name for name, module in model.named_modules() if id(module) in upper}
    bank = ExpertBank.attach(model, {k: _restricted(expert, names) for k, expert in bench.experts.items()})
    router = random_router(bank.names, width=model.config.hidden_size, layer=first)
    mixture = Mixture(LoadedBase(model, random_tokenizer(model)), bank, RoutedPolicy(router, top_k=1))
    parts = (router.latent, router.fractal, router.natural, *router.scalers, (router.weight, router.bias))
    held = [tensor for part in parts for tensor in part]
    note = f"experts from layer {first}; the router reads the prompt there, in the same pass, and the likeliest answers"
    system = _banked(bank, lambda batch: mixture.routing([""] * batch), note=note)
    return replace(system, tensors=lambda: (*bank.tensors(), *held))


def resumed_routed(bench: Workbench) -> System:
    """Return `routed` where most of each prompt was read before, under whatever weights: a system prompt."""
    plain = routed(bench)
    model = plain.modules[0]
    memory: dict[Tensor, list[Beginning]] = {}
    first = len(decoder_layers(model)) // 3
    note = (
        f"routed, where layers below {first} know the first {_KNOWN:.0%} of a prompt from an earlier one; "
        "memory does not count what is known"
    )
    return replace(
        plain,
        decoder=lambda: Remembering(model, layer=first, memory=memory, share=_KNOWN, config=model.config),
        note=note,
    )


def _banked(bank: ExpertBank, context: Callable[[int], AbstractContextManager[Any]], *, note: str) -> System:
    return System(
        (bank.model,),
        read_bytes(bank.model) + bank.n_bytes,
        _decoder(bank.model),
        context,
        tensors=bank.tensors,
        expert_bytes=bank.n_bytes,
        note=note,
    )


def _restricted(expert: LoraWeights, names: set[str]) -> LoraWeights:
    layers = {name: pair for name, pair in expert.layers.items() if name in names}
    return LoraWeights(expert.name, expert.r, expert.lora_alpha, expert.use_rslora, expert.base_model, layers)


def _decoder(model: nn.Module) -> Callable[[], Decoder]:
    return lambda: Cached(model, config=model.config)
