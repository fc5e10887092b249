"""A code book of a few mixtures, each one LoRA adapter: for vLLM and other engines that pick one adapter a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.bank import padded, save_peft
from mocae.errors import ConfigError
from mocae.export.bundle import Bundle
from mocae.export.card import written
from mocae.policies import CodeBook

__all__ = ["export_vllm", "fit_code_book", "write_command"]

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank accepts."""


def fit_code_book(experts: tuple[str, ...], alpha: Tensor, *, n_mixtures: int, seed: int = 0) -> CodeBook:
    """Return the code book of the calibration prompts' weights: centres of k-means on alpha, largest cluster first.

    Args:
        experts: names, in the order of weights.
        alpha: (N, K), weights of the calibration prompts under exact routing.
        n_mixtures: most mixtures; fewer where there are fewer different weights.
        seed: of the starts of k-means.

    Raises:
        ConfigError: no weights, or no mixture asked for.
    """
    from sklearn.cluster import KMeans

    if n_mixtures < 1 or not len(alpha):
        raise ConfigError(f"{n_mixtures} mixtures of {len(alpha)} weights asked for; give at least one of each")
    rows = alpha.double().numpy()
    different = len({tuple(row) for row in rows.round(6).tolist()})
    model = KMeans(n_clusters=min(n_mixtures, different), n_init=10, random_state=seed).fit(rows)
    centres = torch.tensor(model.cluster_centers_, dtype=torch.float32)
    order = torch.bincount(torch.tensor(model.labels_), minlength=len(centres)).argsort(descending=True, stable=True)
    return CodeBook(experts, centres[order])


def export_vllm(
    bundle: Bundle, folder: Path, *, alpha: Tensor, n_mixtures: int, rank: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write one adapter a mixture, `code_book.json`, the router, `tokenizer` and `serve.sh`, and return the details.

    Args:
        bundle: base, experts and router.
        folder: empty.
        alpha: (N, K), weights of the calibration prompts under exact routing.
        n_mixtures: most mixtures in the code book.
        rank: of the adapters, cut by SVD; None: exact, the sum of the experts' ranks.
        seed: of k-means.

    Raises:
        ConfigError: no router, no calibration weights, or a rank vLLM does not take.
    """
    bundle.require_router(to="vllm")
    book = fit_code_book(tuple(bundle.experts), alpha, n_mixtures=n_mixtures, seed=seed)
    base_name = bundle.place_base(folder)
    errors, ranks = [], []
    for name, weights in zip(book.names, book.mixtures, strict=True):
        adapter, error = bundle.adapter(weights, rank=rank, name=name)
        errors.append(error)
        ranks.append(adapter.largest_rank)
        save_peft(padded(adapter, r=ranks[-1]), folder / "adapters" / name, base_model_name=base_name)
    largest = next((allowed for allowed in _RANKS if allowed >= max(ranks)), None)
    if largest is None:
        raise ConfigError(
            f"--to vllm: the adapters have rank {max(ranks)}, vLLM takes at most {_RANKS[-1]}; give --rank {_RANKS[-1]}"
        )
    book.save(folder / "code_book.json")
    bundle.save_router(folder)
    bundle.base.save_reading(folder / "tokenizer", bundle.template())
    write_command(folder, base_name, largest)
    return {
        "mixtures": [bundle.named(row) for row in book.mixtures],
        "rank": max(ranks),
        "max_lora_rank": largest,
        "relative_errors": errors,
        "moved_weight": float(book.distance(alpha).mean()),
    }


def write_command(folder: Path, base_name: str, max_rank: int) -> None:
    """Write `serve.sh`, which starts vLLM with the adapters of an export from whatever folder it is called.

    Raises:
        ArtifactError: the export's code book cannot be read.
    """
    book = CodeBook.load(folder / "code_book.json")
    modules = [{"name": name, "path": f"adapters/{name}", "base_model_name": base_name} for name in book.names]
    text = written("serve.sh.j2", {"base": base_name, "rank": max_rank, "modules": modules})
    (folder / "serve.sh").write_text(text, encoding="utf-8")
