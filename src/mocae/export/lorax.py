"""Adapters for LoRAX, which mixes adapters by `merged_adapters` in each request, laid out so that its sum is exact."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mocae.bank import LoraWeights, padded, save_peft
from mocae.export.bundle import Bundle

__all__ = ["MINUS", "export_lorax", "merged_adapters"]

MINUS = "-minus"
"""Ending of the adapter that stands for an expert with negative weight."""


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
    extra = bundle.vector(weights, to="lorax") if weights else None
    ranks = {name: max(pair.r for pair in expert.layers.values()) for name, expert in bundle.experts.items()}
    total, start = sum(ranks.values()), 0
    base_name = bundle.place_base(folder)
    for name, expert in bundle.experts.items():
        own = padded(expert, r=total, start=start)
        save_peft(own, folder / "adapters" / name, base_model_name=base_name)
        save_peft(_mirrored(own), folder / "adapters" / f"{name}{MINUS}", base_model_name=base_name)
        start += ranks[name]
    names = list(bundle.experts)
    mixtures = {name: {name: 1.0} for name in names}
    mixtures["uniform"] = dict.fromkeys(names, 1 / len(names))
    if extra is not None:
        mixtures["given"] = dict(zip(names, extra.tolist(), strict=True))
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
    return {
        "merged_adapters": {
            "ids": [f"{prefix}{name}{MINUS if weight < 0 else ''}" for name, weight in used.items()],
            "weights": [math.sqrt(abs(weight)) for weight in used.values()],
            "merge_strategy": "linear",
        }
    }


def _mirrored(expert: LoraWeights) -> LoraWeights:
    return replace(expert, layers={m: replace(pair, B=-pair.B) for m, pair in expert.layers.items()})
