"""One plain LoRA for given weights: what PEFT, and every tool that reads its folders, takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mocae.bank import combine, save_peft, truncate
from mocae.export.bundle import Bundle

__all__ = ["export_peft"]


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
    alpha = bundle.vector(weights, to="peft")
    adapter = combine(bundle.experts, alpha, name="mixture")
    error = 0.0
    if rank is not None:
        adapter, error = truncate(adapter, rank)
    save_peft(adapter, folder, base_model_name=bundle.place_base(folder))
    bundle.base.save_reading(folder)
    return {
        "weights": dict(zip(bundle.experts, alpha.tolist(), strict=True)),
        "rank": max(pair.r for pair in adapter.layers.values()),
        "relative_error": error,
        "n_parameters": adapter.n_parameters,
    }
