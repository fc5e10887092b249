"""A trainable LoRA adapter on a base model, for a while: afterwards the base model is what it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from mocae.errors import ArtifactError, ConfigError
from mocae.models import decoder_layers, reshard

__all__ = ["LoraSpec", "given_back", "quiet_peft", "trainable_adapter"]


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Shape of a LoRA adapter, in PEFT's words.

    Attributes:
        r: rank.
        lora_alpha: numerator of the scaling lora_alpha / r.
        lora_dropout: before lora_A.
        use_rslora: scale by lora_alpha / sqrt(r) instead.
        target_modules: adapted linears by the end of their names; "all-linear": those of the decoder layers.
        from_layer: first adapted decoder layer.
    """

    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    use_rslora: bool = False
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    from_layer: int = 0


@contextmanager
def trainable_adapter(model: Any, lora: LoraSpec, *, start_from: Path | None = None) -> Iterator[PeftModel]:
    """Return a context with a trainable adapter on `model`: a new one, or the one in `start_from`.

    After it the model has the modules, attributes, hooks and settings it had before, whatever PEFT, TRL and the trainer
    put there; its parameters are frozen.

    Raises:
        ConfigError: a layer or target module the model does not have.
        ArtifactError: `start_from` holds no adapter.
    """
    reshard(model)
    with given_back(model):
        yield _loaded(model, start_from) if start_from is not None else _fresh(model, lora)


def _fresh(model: Any, lora: LoraSpec) -> Any:
    layers = decoder_layers(model)
    if lora.from_layer >= len(layers):
        raise ConfigError(
            f"experts.from_layer is {lora.from_layer}; the model has decoder layers 0 to {len(layers) - 1}"
        )
    adapted = range(lora.from_layer, len(layers))
    targets = list(lora.target_modules)
    if lora.target_modules == "all-linear":
        # PEFT's own "all-linear" cannot be limited to some layers, so the names are given instead.
        found = [name for i in adapted for name, module in layers[i].named_modules() if isinstance(module, nn.Linear)]
        targets = sorted({name.rpartition(".")[2] for name in found})
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]  # annotated int; PEFT divides it and writes it as it is
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        target_modules=targets,
        layers_to_transform=list(adapted) if lora.from_layer else None,
        task_type="CAUSAL_LM",
    )
    try:
        with quiet_peft():
            wrapped = get_peft_model(model, config)
            if config.target_parameters:
                raise ConfigError(
                    f"experts.target_modules {targets}: PEFT adapts the fused parameters "
                    f"{sorted(config.target_parameters)} of a sparse block in place of those linears, which no bank "
                    "can mix; set experts.target_modules to others, such as those of attention"
                )
            return wrapped
    except ValueError as error:
        raise ConfigError(f"experts.target_modules {targets} do not fit the model: {error}") from error


def _loaded(model: Any, folder: Path) -> Any:
    if not (folder / "adapter_config.json").is_file():
        raise ArtifactError(f"{folder}: no adapter_config.json, so there is no adapter to train further")
    with quiet_peft():
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Return a context without two warnings of PEFT 0.21.

    It asks for an attribute that transformers 5.23 deprecates, and tells of patterns it made itself.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys", category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


@contextmanager
def given_back(model: Any) -> Iterator[None]:
    """Return a context after which the model's modules and configurations hold what they hold now.

    Submodules, hooks, patched methods, flags and token ids are put back; its parameters are frozen.
    """
    settings = (model.config, model.config.get_text_config(), model.generation_config)
    held = [vars(thing) for thing in (*model.modules(), *settings) if thing is not None]
    before = [
        (own, dict(own), {key: dict(value) for key, value in own.items() if isinstance(value, dict)}) for own in held
    ]
    try:
        yield
    finally:
        for own, attributes, entries in before:
            own.clear()
            own.update(attributes)
            for key, entry in entries.items():
                own[key].clear()
                own[key].update(entry)
        model.requires_grad_(False)
