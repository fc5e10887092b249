"""Load a base model with its tokenizer, and tell two base models apart."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from mocae.errors import ConfigError, ModelMismatchError
from mocae.models.description import BaseDescription, describe
from mocae.models.find import BASE_MODELS, find_base
from mocae.models.logits import EachRow, LogitsSettings
from mocae.models.precision import pick_dtype
from mocae.models.quantization import keep_unpacked, quantization_config
from mocae.progress import say

__all__ = [
    "LoadedBase",
    "base_fingerprint",
    "load_base",
    "load_recorded",
    "without_library_bars",
]

_SAMPLED_VALUES = 64
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


if TYPE_CHECKING:
    _Model: TypeAlias = PreTrainedModel
else:
    _Model = Any  # a model that PEFT wraps generates like one, and is none


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBase:
    """A base model in evaluation mode, its tokenizer (left padding, with a pad token), and how it reads and ends.

    Without a description one is made, and model and tokenizer are set to it.
    """

    model: _Model
    tokenizer: PreTrainedTokenizerBase
    description: BaseDescription = None  # type: ignore[assignment]  # made where it is not given

    def __post_init__(self) -> None:
        if self.description is None:
            object.__setattr__(self, "description", describe(self.model, self.tokenizer))
        self.description.put_into(self.model, self.tokenizer)

    def generate(self, input_ids: Tensor, *, attention_mask: Tensor | None = None, **generation: Any) -> Tensor:
        """Return what Hugging Face's `generate` returns, under the description's logits settings.

        Args:
            input_ids: (B, T), padded on the left.
            attention_mask: (B, T); None: no padding.
            **generation: for `generate`. Names of `LogitsSettings` replace the base's; with a `generation_config` of
                its own a call has none but those.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        own = LogitsSettings() if generation.get("generation_config") else self.description.logits
        settings = own.but(generation)
        given = {name: value for name, value in generation.items() if name not in LogitsSettings.names()}
        given.setdefault("pad_token_id", self.tokenizer.pad_token_id)
        if given.get("do_sample"):
            given.setdefault("top_k", 0)  # the library's own default cuts off all but 50
        if settings:
            each = EachRow(settings, mask, self.description.end_tokens)
            given["logits_processor"] = LogitsProcessorList([each, *(given.get("logits_processor") or ())])
        model: Any = self.model
        out: Tensor = model.generate(input_ids=input_ids, attention_mask=mask, **given)
        return out

    def save_reading(self, folder: Path, template: str | None) -> None:
        """Write the tokenizer with a chat template, and `generation_config.json`, for other libraries."""
        tokenizer = copy.copy(self.tokenizer)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(str(folder))
        self.description.generation_config(self.tokenizer).save_pretrained(str(folder))


def load_base(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> LoadedBase:
    """Return the model, tokenizer and description of a Hub id, a folder, or a name in `BASE_MODELS` ("pocket").

    Weights are read from safetensors only. The tokenizer pads on the left; its pad token is the end-of-text token
    where it has none (so tell padding by the attention mask, not by the id). Embeddings are never resized.

    Args:
        name_or_path: a registered name wins over a folder ("./pocket" is the folder), a folder over a Hub id.
        revision: commit or tag on the Hub.
        dtype: "auto", "bf16", "fp32" or "fp16", see `mocae.models.pick_dtype`.
        device: where to put the model; None = CUDA if there is one, else CPU.
        quantization: hold the linears in 8 or 4 bits: a name in `mocae.models.QUANTIZATIONS`; None = as stored.
        trust_remote_code: run Python code that comes with the model.
        chat_template: see `describe`.
        template_options: see `describe`.
        generation: see `describe`.

    Raises:
        ConfigError: the folder is missing or holds no model, the Hub id does not resolve, the dtype is not known, or
            the model has no such chat template, option or end token.
        ModelMismatchError: the files do not fit together: weights missing, or a tokenizer larger than the model.
    """
    source = find_base(name_or_path)
    if isinstance(name_or_path, str) and name_or_path in BASE_MODELS and Path(name_or_path).exists():
        say(f"base model {name_or_path}: the one of that name that mocae knows; the folder here is './{name_or_path}'")
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
    description = describe(
        model, tokenizer, chat_template=chat_template, template_options=template_options, generation=generation
    )
    if description.logits:
        say(f"base model {name_or_path}: {description.logits.changed} in every answer; base.generation changes it")
    return LoadedBase(model, tokenizer, description)


def load_recorded(
    entry: Mapping[str, Any],
    *,
    where: Path,
    chat: bool,
    device: str | None = None,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedBase:
    """Return the base model that a manifest names, read and ended as it was when the manifest was written.

    Args:
        entry: `base` of the manifest.
        where: folder of the manifest, for messages.
        chat: whether prompts are written by the chat template.
        device: see `load_base`.
        base_model: where it lies now, if not where the manifest says.
        trust_remote_code: see `load_base`.

    Raises:
        ConfigError: see `load_base`.
        ArtifactError: the entry is damaged.
        ModelMismatchError: another base model, or one with another tokenizer or chat template.
    """
    base = load_base(
        base_model or entry["model"],
        revision=entry["revision"],
        dtype=_SHORT.get(entry["dtype"], "fp32"),
        device=device,
        quantization=entry.get("quantization"),
        trust_remote_code=trust_remote_code,
        chat_template=entry.get("chat_template") if chat else None,
        template_options=entry.get("template_options") if chat else None,
    )
    found = base_fingerprint(base.model)
    if found != entry["fingerprint"]:
        raise ModelMismatchError(
            f"{where}: made for base model {entry['model']!r} with fingerprint {entry['fingerprint'][:12]}, the one "
            f"loaded has {found[:12]}; give base_model the same one"
        )
    if entry.get("description") is None:  # written before descriptions were
        return base
    known = base.description.as_recorded(entry["description"], where=str(where), chat=chat)
    return LoadedBase(base.model, base.tokenizer, known)


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


def _fit_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
    """Give the tokenizer a pad token, and check that all its ids have an embedding."""
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
