"""Base models in 4 or 8 bits: how transformers is asked for them."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from mocae.errors import ConfigError, unknown_name

__all__ = ["QUANTIZATIONS", "keep_unpacked", "quantization_config"]


def quantization_config(name: str, *, dtype: torch.dtype) -> Any:
    """Return the setting that makes transformers quantise the linears while it loads them; the head stays as it is.

    Args:
        name: one of `QUANTIZATIONS`.
        dtype: what 4-bit linears compute in.

    Raises:
        ConfigError: the name is not known, or its library is not installed.
    """
    if name not in QUANTIZATIONS:
        raise ConfigError(f"base.quantization: {unknown_name('quantisation', name, QUANTIZATIONS)}")
    library, build = QUANTIZATIONS[name]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(f"base.quantization {name!r}: {library} is not installed; run: pip install 'mocae[quantize]'")
    return build(dtype)


def keep_unpacked(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights in another order while a model answers on a CPU with AVX512-BF16.

    No gradient flows through a packed linear, and when an adapter is saved the weights come back with their scales out
    of order (bitsandbytes 0.50.2), so a base model that has answered could not be trained on, and was damaged by it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _bnb_int8(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    # The library says in every product that it casts bf16 to fp16.
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(lambda record: "will be cast" not in record.msg)
    return BitsAndBytesConfig(load_in_8bit=True)


def _bnb_nf4(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _torchao_int8(dtype: torch.dtype) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(version=2))


QUANTIZATIONS: Mapping[str, tuple[str, Callable[[torch.dtype], Any]]] = MappingProxyType(
    {
        "bnb-int8": ("bitsandbytes", _bnb_int8),
        "bnb-nf4": ("bitsandbytes", _bnb_nf4),
        "torchao-int8": ("torchao", _torchao_int8),
    }
)
"""Name -> the library it needs, and what makes its setting from a dtype."""
