"""PEFT's Arrow: every linear weighs the experts of every token by their leading directions; nothing is trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import ArrowConfig, LoraConfig, PeftModel
from torch import nn

from mocae.errors import ConfigError
from mocae.experts import quiet_peft

__all__ = ["on_arrow"]


def on_arrow(
    model: Any,
    folders: Sequence[Path],
    *,
    top_k: int,
    temperature: float = 1.0,
    seed: int = 0,
    autocast: bool = True,
) -> PeftModel:
    """Return `model` with the experts behind PEFT's Arrow router, in place and in evaluation mode.

    Args:
        model: the base model.
        folders: PEFT adapters of the same rank on the same linears.
        top_k: experts a token uses in a linear.
        temperature: of the softmax over absolute inner products of token and prototype.
        seed: start of the power iteration that finds each expert's leading direction.
        autocast: keep experts in fp32 where the base is of half precision.

    Raises:
        ConfigError: experts of different ranks or linears, which PEFT's Arrow stacks into one tensor.

    Reference: Ostapenko et al., Towards Modular LLMs by Building and Reusing a Library of LoRAs (arXiv 2405.11157).
    Deviation: `peft.create_arrow_model` puts its router on linears of that name in every layer, and fails in a layer
        that no expert adapts; here it sits where the experts do.
    """
    names = [f"task_{k}" for k in range(len(folders))]
    with quiet_peft():
        first, *others = folders
        wrapped = PeftModel.from_pretrained(model, str(first), names[0], autocast_adapter_dtype=autocast)
        for name, folder in zip(names[1:], others, strict=True):
            wrapped.load_adapter(str(folder), name, autocast_adapter_dtype=autocast)
        tuner: Any = wrapped.base_model
        ranks = _ranks(tuner.model, names)
        config = ArrowConfig(top_k=min(top_k, len(folders)), router_temperature=temperature, rng_seed=seed)
        config.task_adapter_names, config.gks_adapter_names = names, []
        router = LoraConfig(arrow_config=config, target_modules=list(ranks), r=next(iter(ranks.values())))
        wrapped.add_adapter("arrow_router", router)
        wrapped.set_adapter("arrow_router")
    return wrapped.eval()


def _ranks(model: nn.Module, names: Sequence[str]) -> dict[str, int]:
    """Return the rank of the experts in each linear they adapt."""
    found: dict[str, int] = {}
    for place, module in model.named_modules():
        held: Any = getattr(module, "lora_A", None)
        if not held:
            continue
        ranks = {name: held[name].weight.shape[0] if name in held else 0 for name in names}
        if len(set(ranks.values())) != 1:
            raise ConfigError(
                f"Arrow needs experts of one rank on the same linears; at {place} they have ranks "
                f"{list(ranks.values())}. Train them with the same experts.r and target_modules"
            )
        found[place] = ranks[names[0]]
    if len(set(found.values())) != 1:
        raise ConfigError(f"Arrow needs experts of one rank in all linears, got {sorted(set(found.values()))}")
    return found
