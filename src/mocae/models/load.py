"""Load a base model with its tokenizer, and tell two base models apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mocae.errors import ConfigError, ModelMismatchError
from mocae.models.precision import pick_dtype
from mocae.models.quantization import keep_unpacked, quantization_config
from mocae.registry import Registry

__all__ = ["BASE_MODELS", "LoadedBase", "base_fingerprint", "load_base", "without_library_bars"]

BASE_MODELS: Registry[Callable[[], Path]] = Registry(
    "base model",
    entry_point_group="mocae.base_models",
    builtin={"pocket": ("mocae.pocket.assets:pocket_model_path", "the 3 M-parameter Llama of the pocket lab")},
)
"""Short names for base models: each entry is a function that returns the model's folder."""

_SAMPLED_VALUES = 64


class LoadedBase(NamedTuple):
    """A base model in evaluation mode, and its tokenizer (left padding, with a pad token)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_base(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedBase:
    """Return the model and tokenizer of a Hub id, a folder, or a name in `BASE_MODELS` ("pocket").

    Weights are read from safetensors only. The tokenizer pads on the left; its pad token is the end-of-text token
    where it has none (so tell padding by the attention mask, not by the id). Embeddings are never resized.

    Args:
        name_or_path: a registered name wins over a folder ("./pocket" is the folder), a folder over a Hub id.
        revision: commit or tag on the Hub.
        dtype: "auto", "bf16", "fp32" or "fp16", see `mocae.models.pick_dtype`.
        device: where to put the model; None = CUDA if there is one, else CPU.
        quantization: hold the linears in 8 or 4 bits: a name in `mocae.models.QUANTIZATIONS`; None = as stored.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ConfigError: the folder is missing or holds no model, the Hub id does not resolve, the dtype is not known.
        ModelMismatchError: the files do not fit together: weights missing, or a tokenizer larger than the model.
    """
    source = _resolve(name_or_path)
    target = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    shared: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    chosen = pick_dtype(dtype, target)
    asked: dict[str, Any] = {}
    if quantization is not None:
        # Quantised while loading, straight onto the device: `.to` cannot follow later.
        asked = {
            "quantization_config": quantization_config(quantization, dtype=chosen),
            "device_map": {"": str(target)},
        }
    try:
        with without_library_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=chosen, use_safetensors=True, output_loading_info=True, **asked, **shared
            )
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **shared)
    except Exception as error:  # hub, safetensors, tokenizers and every configuration class raise their own
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(
            f"base model {str(name_or_path)!r} cannot be loaded: {reason}. Accepted: a folder with config.json, "
            "safetensors weights and a tokenizer, a Hub id of such files, or one of "
            f"{', '.join(map(repr, BASE_MODELS))}"
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelMismatchError(
            f"base model {str(name_or_path)!r} has no weights for {len(info['missing_keys'])} parameters ({some}); "
            "they would be random. Use a complete causal language model"
        )
    _fit_tokenizer(tokenizer, model, str(name_or_path))
    if quantization is None:
        model.to(target)
    else:
        keep_unpacked(model)
    model.eval()
    return LoadedBase(model, tokenizer)


@contextmanager
def without_library_bars() -> Iterator[None]:
    """Return a context in which transformers draws no bar while it reads weights: progress is `mocae.progress`'s."""
    before = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            transformers.utils.logging.enable_progress_bar()


def base_fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 in hex that tells base models apart: parameter names, shapes and 64 values of each.

    Values are sampled at even strides and rounded to bf16, and the dtype itself is left out: the same weights
    loaded in fp32 on one machine and in bf16 on another are the same base model; quantised they are another. Fast for
    any size.

    Raises:
        ModelMismatchError: the model has no parameters, or their values are not loaded (meta device).
    """
    digest = hashlib.sha256()
    parameters = sorted(model.named_parameters())
    if not parameters:
        raise ModelMismatchError(f"{type(model).__name__} has no parameters to take a fingerprint of")
    for name, parameter in parameters:
        if parameter.is_meta:
            raise ModelMismatchError(f"parameter {name!r} is on the meta device; load the weights first")
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        values: Any = parameter.detach()
        if hasattr(values, "tensor_data_names"):  # a quantised tensor of torchao, which cannot be reshaped
            values = values.dequantize()
        flat = values.reshape(-1)
        if flat.numel():
            stride = max(1, flat.numel() // _SAMPLED_VALUES)
            sample = flat[::stride][:_SAMPLED_VALUES].to("cpu", torch.bfloat16).contiguous()
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _resolve(name_or_path: str | Path) -> str:
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in BASE_MODELS:
        return _checked_folder(BASE_MODELS.get(name)())
    try:
        folder = Path(name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long for the file system, a NUL, somebody else's home
        raise ConfigError(f"base model {name[:80]!r} can be no folder ({error}); give a shorter name") from error
    if is_folder:
        return _checked_folder(folder)
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"base model folder {name!r} does not exist; give a folder that does, or a Hub id (owner/name)"
        )
    return name


def _checked_folder(folder: Path) -> str:
    if (folder / "config.json").is_file():
        odd = next((p.name for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())), None)
        if odd is not None:
            raise ConfigError(f"folder {str(folder)!r}: {odd} is a device or FIFO; give a folder of plain files")
        return str(folder)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{str(folder)!r} is an adapter, not a base model (it has adapter_config.json, no config.json); "
            "name its base model here and the adapter as an expert"
        )
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
    raise ConfigError(
        f"folder {str(folder)!r} is not a model: no config.json in it (it holds: {held or 'nothing'}); "
        "give a folder written by save_pretrained"
    )


def _fit_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Give the tokenizer a pad token, tell the model about it, and check that all its ids have an embedding."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(f"the tokenizer of {name!r} has neither a pad nor an eos token; set one in its files")
        tokenizer.pad_token = tokenizer.eos_token
    embeddings: Any = model.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelMismatchError(
            f"the tokenizer of {name!r} has {len(tokenizer)} tokens but the model embeds {rows}; "
            "give a model and tokenizer that belong together"
        )
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
