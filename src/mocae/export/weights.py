"""Given weights as one LoRA, inside the base model's own weights, or as adapters that LoRAX mixes in each request."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mocae.bank import ExpertBank, LoraWeights, padded, save_peft
from mocae.errors import ConfigError
from mocae.export.bundle import Bundle, mixture_vector
from mocae.merging import applied

__all__ = ["MINUS", "export_lorax", "export_merged", "export_peft", "merged_adapters"]

MINUS = "-minus"
"""Ending of the adapter that stands for an expert with negative weight."""


def export_peft(
    bundle: Bundle, folder: Path, *, weights: Mapping[str, float] | None, rank: int | None = None
) -> dict[str, Any]:
    """Write the mixture as one adapter and return its details: weights, rank, relative error.

    Beside it stand the tokenizer and `generation_config.json`, so that prompts read and answers end as measured.

    Without `rank` the factors are concatenated, so the adapter *is* the mixture (its rank is the sum of the experts').
    With it the change is cut to that rank by SVD, and the error is the Frobenius norm of what was lost over that of the
    whole, all linears together.

    Args:
        bundle: base and experts.
        folder: empty.
        weights: expert -> weight, negative allowed.
        rank: of the result, None: exact.

    Raises:
        ConfigError: no weights, a name that is no expert, or a rank under 1.
    """
    alpha = mixture_vector(weights, list(bundle.experts), to="peft")
    adapter, error = bundle.adapter(alpha, rank=rank)
    save_peft(adapter, folder, base_model_name=bundle.place_base(folder))
    bundle.base.save_reading(folder, bundle.template())
    return {
        "weights": bundle.named(alpha),
        "rank": adapter.largest_rank,
        "relative_error": error,
        "n_parameters": adapter.n_parameters,
    }


def export_merged(bundle: Bundle, folder: Path, *, weights: Mapping[str, float] | None) -> dict[str, Any]:
    """Write model and tokenizer with the experts merged in and return the details: weights, dtype.

    Changes are summed in fp32 and cast once to the number format the artifact was made in.

    Args:
        bundle: base and experts, or the change a merge method has made of them; the base model is as before afterwards.
        folder: empty.
        weights: expert -> weight, negative allowed; none for a change.

    Raises:
        ConfigError: no weights, a name that is no expert, or weights the number format cannot hold the result of.
        ModelMismatchError: the base model is quantised or ties an adapted weight, so nothing can be merged into it.
    """
    model: Any = bundle.base.model
    with ExitStack() as stack:
        if bundle.change is not None:
            stack.enter_context(applied(model, bundle.change))
            used: dict[str, float] = {}
        else:
            alpha = mixture_vector(weights, list(bundle.experts), to="merged")
            used = bundle.named(alpha)
            bank = ExpertBank.attach(model, bundle.experts, fused=False)
            stack.callback(bank.detach)
            stack.enter_context(bank.merged(alpha))
        for name, value in model.named_parameters():
            if not value.isfinite().all():
                raise ConfigError(
                    f"--weights {dict(weights or {})}: {name} is not finite in {value.dtype}; give smaller ones"
                )
        model.save_pretrained(str(folder))
    bundle.base.save_reading(folder, bundle.template())
    return {"weights": used, "dtype": str(model.dtype).removeprefix("torch.")}


def export_lorax(bundle: Bundle, folder: Path, *, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Write `adapters/<expert>` and `adapters/<expert>-minus`, one `requests/<mixture>.json` each, and return details.

    LoRAX's `linear` strategy adds `lora_A` and `lora_B` apart, which has cross terms between experts, and it wants
    equal ranks. Here every expert has ranks of its own and zeros elsewhere, so there are no cross terms and the sum is
    exact with the square roots of the weights; a negative weight takes the expert's mirror image.

    Args:
        bundle: base and experts.
        folder: empty.
        weights: one more mixture, `requests/given.json`, beside every expert alone and the uniform one.

    Raises:
        ConfigError: a name that is no expert.
    """
    mixtures = bundle.mixtures(weights, to="lorax")
    total, start = sum(expert.largest_rank for expert in bundle.experts.values()), 0
    base_name = bundle.place_base(folder)
    for name, expert in bundle.experts.items():
        own = padded(expert, r=total, start=start)
        save_peft(own, folder / "adapters" / name, base_model_name=base_name)
        save_peft(_mirrored(own), folder / "adapters" / f"{name}{MINUS}", base_model_name=base_name)
        start += expert.largest_rank
    (folder / "requests").mkdir()
    for mixture, mixed in mixtures.items():
        body = {"inputs": "...", "parameters": {"max_new_tokens": 64, **merged_adapters(mixed)}}
        (folder / "requests" / f"{mixture}.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    bundle.save_router(folder)
    return {"rank": total, "weights": mixtures.get("given")}


def merged_adapters(weights: Mapping[str, float], *, prefix: str = "") -> dict[str, Any]:
    """Return the part of a LoRAX request that asks for a mixture of adapters written by `export_lorax`.

    >>> merged_adapters({"honesty": 0.25, "helpfulness": -0.04})["merged_adapters"]["ids"]
    ['honesty', 'helpfulness-minus']
    >>> merged_adapters({"honesty": 0.25, "helpfulness": -0.04})["merged_adapters"]["weights"]
    [0.5, 0.2]

    Args:
        weights: expert -> weight; those of weight 0 are left out.
        prefix: what stands before the adapters' names where the server finds them.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    if not used:
        return {}
    ids = [f"{prefix}{name}{MINUS if weight < 0 else ''}" for name, weight in used.items()]
    roots = [math.sqrt(abs(weight)) for weight in used.values()]
    return {"merged_adapters": {"ids": ids, "weights": roots, "merge_strategy": "linear"}}


def _mirrored(expert: LoraWeights) -> LoraWeights:
    return replace(expert, layers={m: replace(pair, B=-pair.B) for m, pair in expert.layers.items()})
