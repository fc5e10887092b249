"""A bundle of adapters and a router on a tiny random model."""

from __future__ import annotations

from pathlib import Path

import torch

from mocae.bank import load_peft
from mocae.calibration import AlignXRouter, CalibrationSet, RouterSettings, fit_latent_space, fit_router
from mocae.experts import pooled_states
from mocae.export import Bundle
from mocae.models import LoadedBase, base_fingerprint

WEIGHTS = {"all": 0.7, "rslora": -0.2, "pattern": 0.4}


def bundle_on(base: LoadedBase, folder: Path, adapters: dict[str, Path]) -> Bundle:
    return Bundle(
        base=base,
        base_name=str(folder),
        revision=None,
        fingerprint=base_fingerprint(base.model),
        prompt_format="plain",
        experts={name: load_peft(path, name=name) for name, path in adapters.items()},
        router=router_on(base, tuple(adapters)),
    )


def router_on(base: LoadedBase, experts: tuple[str, ...], layer: int = 1) -> AlignXRouter:
    """Return a router that reads which letter a prompt is made of."""
    texts = [letter * n for letter in "abc" for n in range(2, 10)]
    labels = torch.arange(3).repeat_interleave(8)
    pooled = pooled_states(base.model, base.tokenizer, texts, layer=layer, pool="mean", label="")
    latent = fit_latent_space(pooled, [pooled[labels == i] for i in range(3)], k=4)
    data = CalibrationSet(pooled, torch.nn.functional.one_hot(labels, 3).bool(), labels, [""] * len(labels))
    clouds = [latent.encode(pooled[labels == i]) for i in range(3)]
    settings = RouterSettings(
        l2=0.1, calibration="temperature", temperature=1.0, lambdas=(0.0, 0.4)
    )  # the fractal term has steps
    fitted = fit_router(data, axes=experts, latent=latent, clouds=clouds, settings=settings, layer=layer, pool="mean")
    return fitted.router


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits
