"""Load a base model with its tokenizer, and tell two base models apart."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
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
from mocae.models.logits import EachRow, LogitsSettings
from mocae.models.precision import pick_dtype
from mocae.models.quantization import keep_unpacked, quantization_config
from mocae.progress import say
from mocae.registry import Registry

__all__ = [
    "BASE_MODELS",
    "LoadedBase",
    "base_fingerprint",
    "find_base",
    "is_cached",
    "load_base",
    "load_recorded",
    "without_library_bars",
]

BASE_MODELS: Registry[Callable[[], Path]] = Registry(
    "base model",
    entry_point_group="mocae.base_models",
    builtin={"pocket": ("mocae.pocket.assets:pocket_model_path", "the 3 M-parameter Llama of the pocket lab")},
)
"""Short names for base models: each entry is a function that returns the model's folder."""

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


def find_base(name_or_path: str | Path) -> str:
    """Return the folder of a base model whose files are there, or the Hub id that a name can only be.

    Args:
        name_or_path: as for `load_base`.

    Raises:
        ConfigError: there is no such folder, or it holds no model in safetensors.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in BASE_MODELS:
        if Path(name).exists():
            say(f"base model {name}: the one of that name that mocae knows; the folder here is './{name}'")
        return _checked_folder(BASE_MODELS.get(name)())
    try:
        folder = Path(name).expanduser()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long for the file system, a NUL, somebody else's home
        raise ConfigError(f"base model {name[:80]!r} can be no folder ({error}); give a shorter name") from error
    if is_folder:
        return _checked_folder(folder)
    if is_file or folder.suffix == ".gguf":
        raise ConfigError(_gguf(folder) if folder.suffix == ".gguf" else f"{name!r} is a file; give the model's folder")
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"base model folder {name!r} does not exist; give a folder that does, or a Hub id (owner/name)"
        )
    return name


def is_cached(hub_id: str) -> bool:
    """Return whether a model of the Hub is on this machine."""
    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def _checked_folder(folder: Path) -> str:
    if (folder / "config.json").is_file():
        odd = next((p.name for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())), None)
        if odd is not None:
            raise ConfigError(f"folder {str(folder)!r}: {odd} is a device or FIFO; give a folder of plain files")
        _check_weights(folder)
        return str(folder)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{str(folder)!r} is an adapter, not a base model (it has adapter_config.json, no config.json); "
            "name its base model here and the adapter as an expert"
        )
    if gguf := next(iter(sorted(folder.glob("*.gguf"))), None):
        raise ConfigError(_gguf(gguf))
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else ""
    raise ConfigError(
        f"folder {str(folder)!r} is not a model: no config.json in it (it holds: {held or 'nothing'}); "
        "give a folder written by save_pretrained"
    )


def _check_weights(folder: Path) -> None:
    """Refuse a folder whose weights are not there, or in a form that is not read."""
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index}: damaged ({error}); fetch the model again") from error
    missing = sorted(name for name in names if not (folder / name).is_file())
    if not missing:
        return
    pickled = next((path for end in ("*.bin", "*.pt", "*.pth") for path in sorted(folder.glob(end))), None)
    if index.is_file() or pickled is None:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        raise ConfigError(
            _gguf(gguf)
            if gguf
            else f"folder {str(folder)!r}: its weights are missing ({', '.join(missing[:3])}); fetch the model again"
        )
    raise ConfigError(
        f"folder {str(folder)!r}: its weights are {pickled.name}, a pickle, which can run code and is not read. "
        'Convert them where you trust the file: python -c "from transformers import AutoModelForCausalLM as M; '
        f'M.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained({str(folder)!r})"'
    )


def _gguf(path: Path) -> str:
    return (
        f"{str(path)!r} is a GGUF file, which llama.cpp runs and nothing trains; give the folder it was made from, or "
        'write one: python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
        f"[x.from_pretrained({str(path.parent)!r}, gguf_file={path.name!r}).save_pretrained('base') for x in (M, T)]\""
    )


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
