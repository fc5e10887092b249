"""The rivals: PEFT's ways of running several adapters, feed-forward mixtures, and whole models."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from peft import PeftModel
from torch import nn

from mocae.bench.decoding import Cached, Ensemble, Uncached
from mocae.bench.memory import read_bytes
from mocae.bench.systems import System, Workbench
from mocae.registry import Registry

__all__ = ["ffn_dense", "ffn_top2", "peft_all", "peft_arrow", "peft_one", "peft_xlora", "whole_models"]

_PARTS: Registry[Callable[..., Any]] = Registry("part of the benchmark", entry_point_group="mocae.bench_parts")
"""What puts experts on a model in ways of other packages."""


def peft_one(bench: Workbench) -> System:
    """Return the base with the first expert as PEFT puts it on."""
    folder = next(iter(bench.folders.values()))
    with _quiet():
        # In the dtype of the base, as ours: PEFT would cast the adapters to fp32.
        model = PeftModel.from_pretrained(bench.shared_copy(), folder, autocast_adapter_dtype=False).eval()
    return _cached(model, bench, expert_bytes=bench.expert_bytes // len(bench.experts))


def peft_all(bench: Workbench) -> System:
    """Return the base with all experts active at once in PEFT."""
    with _quiet():
        (first, folder), *others = bench.folders.items()
        model = PeftModel.from_pretrained(bench.shared_copy(), folder, first, autocast_adapter_dtype=False)
        for other, path in others:
            model.load_adapter(path, other, autocast_adapter_dtype=False)
        tuner: Any = model.base_model  # the method of the tuner takes several adapters, that of the model one
        tuner.set_adapter(list(bench.folders))
        model.eval()
    return _cached(model, bench, expert_bytes=bench.expert_bytes)


def peft_arrow(bench: Workbench) -> System:
    """Return PEFT's Arrow: every linear routes every token by its similarity to the experts' leading directions."""
    put_on, folders = _PARTS.get("arrow"), list(bench.folders.values())
    model = put_on(bench.shared_copy(), folders, top_k=len(folders), autocast=False)
    # The router's own adapter starts in fp32; it holds no weights that are used.
    model.to(bench.base.dtype)
    return _cached(model, bench, expert_bytes=bench.expert_bytes, note="routes every token in every linear")


def peft_xlora(bench: Workbench) -> System:
    """Return PEFT's X-LoRA: two passes over the whole text for every token, no KV cache."""
    model = _PARTS.get("xlora")(bench.shared_copy(), list(bench.folders.values()), autocast=False)
    model.to(bench.base.dtype)
    return System(
        (model,),
        read_bytes(bench.base) + read_bytes(model),  # the pass that asks for the weights, then the pass that uses them
        lambda: Uncached(model),
        expert_bytes=bench.expert_bytes,
        max_repeats=2,
        max_batch_tokens=384,
        # Each token costs more than the one before, so scaling up the first ones flatters it.
        note="no KV cache, two passes a token; two repeats; timed over the first 384 new tokens of a batch, scaled up",
    )


def ffn_top2(bench: Workbench) -> System:
    """Return a mixture of whole feed-forward blocks in which each token uses two."""
    k = len(bench.experts)
    model = bench.shared_copy()
    _PARTS.get("feed-forward")(model, n_experts=k, top_k=2, share_first=True)
    one = read_bytes(bench.base)
    two = one + (read_bytes(model) - one) // max(k - 1, 1)
    return replace(_cached(model, bench, note="each token runs two of the blocks"), reads=two)


def ffn_dense(bench: Workbench) -> System:
    """Return a mixture of whole feed-forward blocks in which each token uses all."""
    model, k = bench.shared_copy(), len(bench.experts)
    _PARTS.get("feed-forward")(model, n_experts=k, top_k=k, share_first=True)
    return _cached(model, bench)


def whole_models(bench: Workbench) -> System:
    """Return one whole model an expert, their probabilities averaged at every token."""
    models = [bench.shared_copy(), *(copy.deepcopy(bench.base) for _ in range(len(bench.experts) - 1))]
    return System(
        tuple(models),
        sum(read_bytes(model) for model in models),
        lambda: Ensemble([Cached(model, config=model.config) for model in models]),
    )


def _cached(model: nn.Module, bench: Workbench, *, expert_bytes: int = 0, note: str = "") -> System:
    decoder = partial(Cached, model, config=bench.base.config)
    return System((model,), read_bytes(model), decoder, expert_bytes=expert_bytes, note=note)


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT reads attributes that transformers deprecates and warns about settings that are meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
