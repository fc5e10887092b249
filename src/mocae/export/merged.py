"""The mixture of given weights inside the base model's own weights: a standard Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mocae.bank import ExpertBank
from mocae.errors import ConfigError
from mocae.export.bundle import Bundle, mixture_vector
from mocae.merging import applied

__all__ = ["export_merged"]


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
