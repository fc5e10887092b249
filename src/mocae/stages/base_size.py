"""Sizes of a base model, counted on a copy without storage; no weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.configuration_utils import PretrainedConfig

from mocae.config import BaseConfig, ExpertsConfig
from mocae.errors import ConfigError, MocaeError, ModelMismatchError, unknown_name
from mocae.models import BASE_MODELS, decoder_layers, feed_forward, layer_index

__all__ = ["BaseSize", "measure_base"]

_DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True, slots=True)
class BaseSize:
    """Sizes of the base model, counted on a copy without storage.

    Attributes:
        origin: where the architecture was read, "config" or "base.shape".
        n_parameters: all parameters, tied ones once.
        n_matmul: parameters a token is multiplied with; all but the embedding table.
        n_matmul_above: those of them from `from_layer` up, output head included.
        n_layers: decoder layers.
        from_layer: first adapted layer.
        hidden_size: values in one hidden vector.
        vocab_size: tokens the head scores.
        cache_values: key and value numbers one token adds to the cache, all layers.
        dtype_bytes: bytes a weight.
        adapted: (out, in) of every adapted linear.
        blocks: (out, in) of every linear in the feed-forward blocks from `from_layer` up; empty where a layer has no
            single block.
        n_blocks: parameters of those blocks.
        unused: keys of `base.shape` that the model's own config contradicts.
    """

    origin: str
    n_parameters: int
    n_matmul: int
    n_matmul_above: int
    n_layers: int
    from_layer: int
    hidden_size: int
    vocab_size: int
    cache_values: int
    dtype_bytes: int
    adapted: tuple[tuple[int, int], ...]
    blocks: tuple[tuple[int, int], ...]
    n_blocks: int
    unused: tuple[str, ...] = ()

    def lora_parameters(self, r: int, *, blocks: bool = False) -> int:
        """Return the parameters of one adapter of rank `r`, on the recipe's linears or on feed-forward blocks."""
        return sum(r * (n_out + n_in) for n_out, n_in in (self.blocks if blocks else self.adapted))


def measure_base(base: BaseConfig, experts: ExpertsConfig) -> BaseSize:
    """Return the sizes of a base model and of the linears an expert adapts.

    The architecture comes from the model's config.json in a folder or in the hub cache, else from `base.shape`.
    With dtype "auto" the type the weights are stored in counts.

    Raises:
        ConfigError: neither can be read, or `from_layer` or a target module is not in the model.
    """
    config, origin = _config(base)
    try:
        with torch.device("meta"):  # shapes without storage
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=base.trust_remote_code)
    except Exception as error:  # no heads, no layers, a size that does not divide: each fails somewhere else
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"{origin.replace('config', 'base.model')}: no model can be made of it ({reason})") from error
    n_layers = len(decoder_layers(model))
    from_layer = _from_layer(experts.from_layer, n_layers)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    embedding, head = _embedding_and_head(model)
    n_matmul = sum(sizes.values()) - (0 if head is embedding else embedding.numel())
    layers = {name: layer_index(name) for name in sizes}
    below = sum(size for name, size in sizes.items() if (layer := layers[name]) is not None and layer < from_layer)
    text = config.get_text_config()
    blocks = _blocks(model, from_layer)
    return BaseSize(
        origin=origin,
        unused=_unused(base.shape, config) if origin == "config" else (),
        n_parameters=sum(sizes.values()),
        n_matmul=n_matmul,
        n_matmul_above=n_matmul - below,
        n_layers=n_layers,
        from_layer=from_layer,
        hidden_size=text.hidden_size,
        vocab_size=embedding.shape[0],
        cache_values=2 * n_layers * _cache_width(text),
        dtype_bytes=_dtype_bytes(base.dtype, config),
        adapted=_adapted(model, experts.target_modules, from_layer),
        blocks=tuple((m.out_features, m.in_features) for b in blocks for m in b.modules() if isinstance(m, nn.Linear)),
        n_blocks=sum(p.numel() for block in blocks for p in block.parameters()),
    )


def _unused(shape: Mapping[str, Any] | None, config: PretrainedConfig) -> tuple[str, ...]:
    """Return the keys of `base.shape` that the model's own config contradicts."""
    return tuple(key for key, value in (shape or {}).items() if getattr(config, key, value) != value)


def _blocks(model: PreTrainedModel, from_layer: int) -> list[nn.Module]:
    """Return the feed-forward blocks from a layer up, none where a layer has no single one."""
    try:
        return [feed_forward(layer) for layer in decoder_layers(model)[from_layer:]]
    except ModelMismatchError:
        return []


def _from_layer(given: int | None, n_layers: int) -> int:
    from_layer = n_layers // 3 if given is None else given
    if from_layer >= n_layers:
        raise ConfigError(
            f"experts.from_layer: got {from_layer}, but the model has {n_layers} layers; "
            f"accepted are 0 to {n_layers - 1}, or null for a third of the depth"
        )
    return from_layer


def _embedding_and_head(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weights of the embedding table and of the output head; one tensor when they are tied."""
    head: Any = model.get_output_embeddings()
    table: Any = model.get_input_embeddings()
    return table.weight, None if head is None else head.weight


def _cache_width(text: Any) -> int:
    """Return key (or value) numbers one token adds in one layer."""
    n_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(n_heads * head_dim)


def _config(base: BaseConfig) -> tuple[PretrainedConfig, str]:
    """Return the architecture and where it was read."""
    reason = "base.model is null"
    if base.model is not None:
        try:
            config = AutoConfig.from_pretrained(
                _place(base.model),
                revision=base.revision,
                trust_remote_code=base.trust_remote_code,
                local_files_only=True,  # a plan needs no network
            )
            return config, "config"
        except MocaeError as error:
            reason = str(error)
            if base.shape is None:
                raise ConfigError(f"base.model: {reason}. {_WHAT_TO_GIVE}") from error
        except Exception as error:  # a configuration class raises its own
            reason = f"{base.model!r} is neither a folder with config.json nor in the hub cache"
            if base.shape is None:
                raise ConfigError(f"base.model: {reason}. {_WHAT_TO_GIVE}") from error
    if base.shape is None:
        raise ConfigError(f"base.model: {reason}. {_WHAT_TO_GIVE}")
    return _config_of_shape(base.shape), "base.shape"


_WHAT_TO_GIVE = (
    "A plan needs the architecture: give a folder, download the model, or set base.shape "
    "to the values of its config.json (model_type, hidden_size, num_hidden_layers, ...)"
)


def _place(model: str) -> str:
    """Return the folder of a registered base model, any other name as it is."""
    if model in BASE_MODELS:
        return str(BASE_MODELS.get(model)())
    return model


def _config_of_shape(shape: dict[str, Any]) -> PretrainedConfig:
    values = dict(shape)
    model_type = values.pop("model_type", None)
    if model_type is None:
        raise ConfigError("base.shape: the key 'model_type' is missing; give it as in config.json, such as 'llama'")
    try:
        config: PretrainedConfig = AutoConfig.for_model(model_type)
        known = config.to_dict() | config.attribute_map
        for key in values:
            if key not in known:  # transformers would keep it as an attribute and count with its own default
                raise ConfigError(f"base.shape: {unknown_name('key', key, known)}")
        config = AutoConfig.for_model(model_type, **values)
    except ConfigError:
        raise
    except Exception as error:  # a configuration class raises its own
        reason = " ".join(str(error).split())
        raise ConfigError(f"base.shape: not an architecture transformers knows: {reason}") from error
    return config


def _dtype_bytes(dtype: str, config: PretrainedConfig) -> int:
    if dtype in _DTYPE_BYTES:
        return _DTYPE_BYTES[dtype]
    stored = config.dtype
    return stored.itemsize if isinstance(stored, torch.dtype) else 4


def _adapted(model: PreTrainedModel, targets: str | tuple[str, ...], from_layer: int) -> tuple[tuple[int, int], ...]:
    """Return (out, in) of every linear an expert adapts, chosen as PEFT does."""
    _, head = _embedding_and_head(model)
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight is not head and (layer_index(name) or 0) >= from_layer
    }
    if targets != "all-linear":
        endings = {name.rpartition(".")[2] for name in linears}
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in linears):
                raise ConfigError(f"experts.target_modules: {unknown_name('module', target, endings)}")
        linears = {n: m for n, m in linears.items() if any(n == t or n.endswith(f".{t}") for t in targets)}
    if not linears:
        raise ConfigError(f"experts.target_modules: {type(model).__name__} has no linear from layer {from_layer} up")
    return tuple((module.out_features, module.in_features) for module in linears.values())
