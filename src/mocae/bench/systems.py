"""The systems that are measured: how each is put together, and what it needs in force while it answers."""

import copy
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from mocae.bank import ExpertBank, LoraWeights
from mocae.bench.decoding import Cached, Decoder, Remembering
from mocae.bench.memory import read_bytes
from mocae.errors import ConfigError, unknown_name
from mocae.models import Beginning, decoder_layers

__all__ = ["SYSTEMS", "System", "Workbench", "build_system", "missing_library"]

_KNOWN = 7 / 8
"""Share of a prompt that `resumed` knows: a system prompt before a question."""


@dataclass(frozen=True, slots=True)
class System:
    """One system, ready to be measured.

    Attributes:
        name: as in `SYSTEMS`.
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

    name: str
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


def build_system(name: str, bench: Workbench) -> System:
    """Return the system called `name`.

    Raises:
        ConfigError: no such system.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"--systems: {unknown_name('system', name, SYSTEMS)}")
    module, _, attribute = SYSTEMS[name][0].partition(":")
    builder: Callable[[str, Workbench], System] = getattr(importlib.import_module(module), attribute)
    return builder(name, bench)


def base(name: str, bench: Workbench) -> System:
    """Return the base model itself."""
    return System(name, (bench.base,), read_bytes(bench.base), _decoder(bench.base))


def stacked(name: str, bench: Workbench) -> System:
    """Return the bank with one row of weights a prompt."""
    bank = bench.bank()
    note = "each row of a batch has weights of its own"
    return _banked(name, bank, lambda batch: bank.weights(bench.rows(batch)), note=note)


def one_used(name: str, bench: Workbench) -> System:
    """Return the bank where all rows use the first expert and no other."""
    bank = bench.bank()
    only = torch.zeros(1, len(bench.experts), device=bench.base.device)
    only[:, 0] = 1
    note = f"weights of {len(bench.experts) - 1} of {len(bench.experts)} experts are 0 in every row"
    return _banked(name, bank, lambda batch: bank.weights(only.expand(batch, -1)), note=note)


def int8_base(name: str, bench: Workbench) -> System:
    """Return the base with its linears in 8 bits, no expert."""
    model = _in_int8(bench)
    return System(name, (model,), read_bytes(model), _decoder(model), note="torchao, weights alone in 8 bits")


def int8_stacked(name: str, bench: Workbench) -> System:
    """Return the bank over a base whose linears are in 8 bits; the experts are as they were."""
    bank = ExpertBank.attach(_in_int8(bench), bench.experts, fused=False)
    note = "the bank over a base with weights in 8 bits; no product is shared"
    return _banked(name, bank, lambda batch: bank.weights(bench.rows(batch)), note=note)


def _in_int8(bench: Workbench) -> PreTrainedModel:
    """Return a copy of the base whose linears but the head are quantised, as `base.quantization: torchao-int8` does."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = copy.deepcopy(bench.base)
    head = model.get_output_embeddings()
    config = Int8WeightOnlyConfig(version=2)
    quantize_(model, config, filter_fn=lambda module, _: isinstance(module, nn.Linear) and module is not head)
    return model


def merged(name: str, bench: Workbench) -> System:
    """Return the bank with one constant mixture folded into the base weights."""
    bank = bench.bank()
    note = "one mixture for all rows; holds the original weights too"
    merged = _banked(name, bank, lambda batch: bank.merged(bench.rows(1)[0]), note=note)
    return replace(merged, reads=read_bytes(bench.base))


def per_token(name: str, bench: Workbench) -> System:
    """Return the bank with a gate that sets the weights of every token from its hidden state, in the same pass."""
    bank = bench.bank()
    layer = decoder_layers(bank.model)[0]
    gate = _gate(bench)

    def route(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        bank.set_weights((hidden @ gate).float().softmax(-1))

    @contextmanager
    def routing(batch: int) -> Iterator[None]:
        handle = layer.register_forward_pre_hook(route, with_kwargs=True)
        try:
            with bank.off():
                yield
        finally:
            handle.remove()

    return _banked(name, bank, routing, note="a gate before the first layer weighs every token")


def routed(name: str, bench: Workbench) -> System:
    """Return experts on the upper two thirds of the layers, weighed by a router that reads the prompt in that pass."""
    model = copy.deepcopy(bench.base)
    layers = decoder_layers(model)
    first = len(layers) // 3
    upper = {id(m) for layer in layers[first:] for m in layer.modules()}
    names = {name for name, module in model.named_modules() if id(module) in upper}
    bank = ExpertBank.attach(model, {k: _restricted(expert, names) for k, expert in bench.experts.items()})
    gate = _gate(bench)

    @contextmanager
    def routing(batch: int) -> Iterator[None]:
        done = False

        def route(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal done
            if not done:
                hidden = args[0] if args else kwargs["hidden_states"]
                bank.set_weights((hidden.mean(1) @ gate).float().softmax(-1))
                done = True

        handle = layers[first].register_forward_pre_hook(route, with_kwargs=True)
        try:
            with bank.off():
                yield
        finally:
            handle.remove()

    note = f"experts from layer {first}; a router reads the prompt there, in the same pass"
    return _banked(name, bank, routing, note=note)


def resumed_routed(name: str, bench: Workbench) -> System:
    """Return `routed` where most of each prompt was read before, under whatever weights: a system prompt."""
    plain = routed(name, bench)
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


def _banked(name: str, bank: ExpertBank, context: Callable[[int], AbstractContextManager[Any]], *, note: str) -> System:
    return System(
        name,
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


def _gate(bench: Workbench) -> Float[Tensor, "D K"]:
    generator = torch.Generator().manual_seed(3)
    gate = torch.randn(bench.base.config.hidden_size, len(bench.experts), generator=generator)
    return gate.to(bench.base.device, bench.base.dtype)


def _decoder(model: nn.Module) -> Callable[[], Decoder]:
    return lambda: Cached(model, config=model.config)


SYSTEMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "base": ("mocae.bench.systems:base", "the base model"),
        "stacked": ("mocae.bench.systems:stacked", "the bank, weights per prompt"),
        "one-used": ("mocae.bench.systems:one_used", "the bank, one expert in use"),
        "merged": ("mocae.bench.systems:merged", "the bank, one mixture folded into the weights"),
        "per-token": ("mocae.bench.systems:per_token", "the bank, weights per token"),
        "routed": ("mocae.bench.systems:routed", "the bank, a router in the same pass"),
        "resumed": ("mocae.bench.systems:resumed_routed", "routed, most of the prompt begun by an earlier one"),
        "int8": ("mocae.bench.systems:int8_base", "the base model with weights in 8 bits"),
        "int8-bank": ("mocae.bench.systems:int8_stacked", "the bank over a base with weights in 8 bits"),
        "peft-1": ("mocae.bench.rivals:peft_one", "PEFT, one LoRA"),
        "peft-3": ("mocae.bench.rivals:peft_all", "PEFT, all LoRAs active"),
        "peft-arrow": ("mocae.bench.rivals:peft_arrow", "PEFT, Arrow routing"),
        "peft-xlora": ("mocae.bench.rivals:peft_xlora", "PEFT, X-LoRA"),
        "ffn-top2": ("mocae.bench.rivals:ffn_top2", "whole feed-forward experts, two a token (as H3Fusion)"),
        "ffn-dense": ("mocae.bench.rivals:ffn_dense", "whole feed-forward experts, all of them"),
        "models-3": ("mocae.bench.rivals:whole_models", "a whole model an expert, probabilities averaged"),
    }
)
"""Systems by name, with one line each; the order is that of the table."""


def missing_library(name: str) -> str | None:
    """Return what a system needs and is not installed, None where nothing is missing."""
    needed = "torchao" if name.startswith("int8") else None
    return needed if needed is not None and importlib.util.find_spec(needed) is None else None
