"""Proof that an export does something: what was written is read back, by the library it is for, and asked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.errors import ModelMismatchError
from mocae.export.bundle import Bundle

__all__ = ["prove_export"]

_PROMPT = "Q: What should I do today?\nA:"


def prove_export(bundle: Bundle, folder: Path) -> None:
    """Do nothing if every adapter in an export, or its merged weights, changes what the base model says to one prompt.

    Adapters are loaded by PEFT and asked; of merged weights and GGUF adapters, whose readers need the whole model again
    or are not here, the tensors are read back and must hold a change. The base model is as before afterwards.

    Raises:
        ModelMismatchError: one changes nothing, or what comes out is not finite.
    """
    folders = sorted(path.parent for path in folder.rglob("adapter_config.json"))
    adapters = [path for path in folders if "base" not in path.relative_to(folder).parts]
    if adapters:
        before = _log_probs(bundle, bundle.base.model)
        for adapter in adapters:
            _refuse_idle(str(adapter.relative_to(folder)), _with_peft(bundle, adapter) - before)
    for path in sorted(folder.glob("*.gguf")):
        _prove_gguf(path)
    if not adapters and (folder / "config.json").is_file():
        _refuse_idle("the merged weights", _difference(bundle, folder))


def _with_peft(bundle: Bundle, adapter: Path) -> Tensor:
    from peft import PeftModel

    model: Any = bundle.base.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about a name that PEFT uses
        wrapped = PeftModel.from_pretrained(model, str(adapter))
    try:
        return _log_probs(bundle, wrapped)
    finally:
        wrapped.unload()
        for leftover in ("peft_config", "_hf_peft_config_loaded"):
            model.__dict__.pop(leftover, None)


@torch.no_grad()
def _log_probs(bundle: Bundle, model: Any) -> Tensor:
    ids = bundle.base.tokenizer(_PROMPT, return_tensors="pt").input_ids.to(bundle.base.model.device)
    log_probs: Tensor = model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
    return log_probs


def _difference(bundle: Bundle, folder: Path) -> Tensor:
    """Return the largest change of each adapted weight in a merged folder."""
    from safetensors import safe_open

    modules = {module for expert in bundle.experts.values() for module in expert.layers}
    adapted = {f"{module}.weight" for module in modules | set(bundle.change.modules if bundle.change else ())}
    own = dict(bundle.base.model.named_parameters())
    changes = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            names = adapted & set(file.keys())
            changes += [
                (file.get_tensor(name).float() - own[name].detach().cpu().float()).abs().max() for name in names
            ]
    return torch.stack(changes) if changes else torch.zeros(1)


def _prove_gguf(path: Path) -> None:
    from gguf import GGUFReader

    raised = [tensor.data for tensor in GGUFReader(path).tensors if tensor.name.endswith(".lora_b")]
    if raised:
        _refuse_idle(path.name, torch.tensor([float(abs(data.astype("float32")).max()) for data in raised]))


def _refuse_idle(name: str, change: Tensor) -> None:
    largest = float(change.abs().max())
    if not change.isfinite().all() or largest == 0:
        raise ModelMismatchError(
            f"the export is not written: {name} {'changes nothing' if largest == 0 else 'is not finite'} in the base "
            "model, so its experts would not act. Train the experts again, or give other weights"
        )
