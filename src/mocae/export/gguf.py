"""GGUF files for llama.cpp: the base model, one adapter an expert, and the scales a request carries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mocae.bank import LoraWeights, padded
from mocae.errors import ModelMismatchError
from mocae.export.bundle import Bundle
from mocae.export.vocabulary import read_vocabulary
from mocae.models import BaseDescription
from mocae.progress import say

__all__ = ["ARCHITECTURES", "NumberFormat", "export_gguf"]

NumberFormat = Literal["f32", "f16", "bf16"]

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""Hugging Face's `model_type` -> the architecture it is for llama.cpp."""

_PERMUTED = "llama"  # the architecture whose q and k rows stand in another order in llama.cpp


def export_gguf(
    bundle: Bundle, folder: Path, *, weights: Mapping[str, float] | None = None, number_format: NumberFormat = "f16"
) -> dict[str, Any]:
    """Write `base.gguf`, one `<expert>.gguf` each, `scales.json`, and return the details.

    llama.cpp's scale of an adapter is the expert's routing weight: adapters are padded to one rank, and lora_alpha is
    that rank. Scales are per request, so routing per prompt is exact there; per token it cannot be expressed.

    Args:
        bundle: base and experts.
        folder: empty.
        weights: written to `scales.json` as one more mixture, beside every expert alone and the uniform one.
        number_format: of matrices; vectors are always f32. f32 keeps what the base model has.

    Raises:
        ModelMismatchError: an architecture, rope scaling, activation, tokenizer or adapted module llama.cpp has no
            place for.
    """
    mixtures = bundle.mixtures(weights, to="gguf")
    arch = _architecture(bundle)
    _write_base(bundle, folder / "base.gguf", arch, number_format)
    files = {name: f"{name}.gguf" for name in bundle.experts}
    for name, expert in bundle.experts.items():
        _write_adapter(bundle, expert, folder / files[name], arch)
    requests = {
        mixture: [{"id": i, "scale": scales[name]} for i, name in enumerate(files)]
        for mixture, scales in mixtures.items()
    }
    (folder / "scales.json").write_text(json.dumps(requests, indent=1) + "\n", encoding="utf-8")
    bundle.save_router(folder)
    return {
        "architecture": arch,
        "number_format": number_format,
        "adapters": files,
        "weights": mixtures.get("given"),
        "notes": _notes(bundle),
    }


def _notes(bundle: Bundle) -> list[str]:
    config: Any = bundle.base.model.config
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) and window and window < config.max_position_embeddings:
        return [f"llama.cpp attends to the whole text; the base model's layers see the last {window} tokens"]
    return []


def _architecture(bundle: Bundle) -> str:
    config: Any = bundle.base.model.config
    if config.model_type not in ARCHITECTURES:
        raise ModelMismatchError(
            f"--to gguf: the base model is of type {config.model_type!r}; supported: "
            f"{', '.join(sorted(ARCHITECTURES))}. Export with --to merged and use llama.cpp's convert_hf_to_gguf.py"
        )
    if config.hidden_act != "silu":
        raise ModelMismatchError(f"--to gguf: the base model's activation is {config.hidden_act!r}; supported: 'silu'")
    rope = _rope(config)
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise ModelMismatchError(
            f"--to gguf: the base model's rope_type is {rope['rope_type']!r}; supported: default, linear, llama3"
        )
    if getattr(config, "use_sliding_window", False):
        raise ModelMismatchError("--to gguf: the base model uses sliding windows (use_sliding_window), not supported")
    return ARCHITECTURES[config.model_type]


def _rope(config: Any) -> dict[str, Any]:
    return {"rope_type": "default", **dict(config.rope_parameters)}


def _heads(config: Any) -> tuple[int, int, int]:
    """Return query heads, key heads, and values a head."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_attention_heads, config.num_key_value_heads, size


def _write_base(bundle: Bundle, path: Path, arch: str, number_format: NumberFormat) -> None:
    import gguf

    config: Any = bundle.base.model.config
    heads, key_heads, head_size = _heads(config)
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_name(bundle.base_name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type({"f32": 0, "f16": 1, "bf16": 32}[number_format])
    _add_vocabulary(writer, bundle)
    for name, tensor in _base_tensors(bundle, arch):
        plain = tensor.dim() < 2 or number_format == "f32"
        _add_tensor(writer, name, tensor, "f32" if plain else number_format)
    _close(writer, path)


def _base_tensors(bundle: Bundle, arch: str) -> Iterator[tuple[str, Tensor]]:
    model: Any = bundle.base.model
    names = _Names(arch, model.config)
    factors = _rope_factors(model)
    if factors is not None:
        yield "rope_freqs.weight", factors
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if not (tied and name == "lm_head.weight"):
            yield names(name), names.permute(name, tensor.detach().float())


def _rope_factors(model: Any) -> Tensor | None:
    """Return what each rope frequency is divided by, None where nothing is."""
    frequencies = [m.inv_freq for m in model.modules() if isinstance(getattr(m, "inv_freq", None), Tensor)]
    _, _, size = _heads(model.config)
    theta = float(_rope(model.config)["rope_theta"])
    plain = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    factors = plain / frequencies[0].float().cpu()
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors


class _Names:
    """Hugging Face's names of tensors as llama.cpp's, and the order of rows that goes with them."""

    def __init__(self, arch: str, config: Any) -> None:
        import gguf

        keys = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
        self._map = gguf.get_tensor_name_map(keys[arch], config.num_hidden_layers)
        self._permuted = arch == _PERMUTED
        self._heads = _heads(config)

    def __call__(self, name: str) -> str:
        """Return llama.cpp's name.

        Raises:
            ModelMismatchError: it has none.
        """
        own = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if own is None:
            raise ModelMismatchError(f"--to gguf: llama.cpp has no place for the tensor {name!r} of this model")
        return str(own)

    def permute(self, name: str, tensor: Tensor) -> Tensor:
        """Return the rows of a query or key projection in llama.cpp's order: pairs that rope turns stand together."""
        module = name.rsplit(".", 2)[-2]
        if not self._permuted or module not in ("q_proj", "k_proj"):
            return tensor
        heads = self._heads[0] if module == "q_proj" else self._heads[1]
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)


def _write_adapter(bundle: Bundle, expert: LoraWeights, path: Path, arch: str) -> None:
    import gguf

    config: Any = bundle.base.model.config
    names = _Names(arch, config)
    r = expert.largest_rank
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_name(expert.name)
    writer.add_float32("adapter.lora.alpha", float(r))  # llama.cpp scales by scale * alpha / r
    for module, pair in padded(expert, r=r).layers.items():
        if module == "lm_head" and config.tie_word_embeddings:
            raise ModelMismatchError(
                f"--to gguf: expert {expert.name!r} adapts lm_head, which is tied to the embeddings and has no tensor "
                "of its own in GGUF; export with --to peft, or train the expert without it"
            )
        name = names(f"{module}.weight")
        _add_tensor(writer, f"{name}.lora_a", pair.A, "f32")
        _add_tensor(writer, f"{name}.lora_b", names.permute(f"{module}.weight", pair.B), "f32")
    _close(writer, path)


def _add_tensor(writer: Any, name: str, tensor: Tensor, number_format: NumberFormat) -> None:
    import gguf

    array = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
    quantised = gguf.GGMLQuantizationType[number_format.upper()]
    if number_format != "f32":
        array = gguf.quantize(array, quantised)
    writer.add_tensor(name, array, raw_dtype=quantised)


def _add_vocabulary(writer: Any, bundle: Bundle) -> None:
    tokenizer: Any = bundle.base.tokenizer
    words = read_vocabulary(tokenizer, bundle.base.model.config.vocab_size)
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.scores is not None:
        writer.add_token_scores(words.scores)
        writer.add_add_space_prefix(words.add_space_prefix)
    if words.merges is not None:
        # llama.cpp refuses byte-level BPE without merges; this one joins nothing that occurs.
        writer.add_token_merges(words.merges or [f"{words.tokens[0]} {words.tokens[0]}"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for name in ("bos", "eos", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    _add_endings(writer, bundle.base.description, eos)
    writer.add_add_bos_token(bos is not None and tokenizer("a").input_ids[0] == bos)
    writer.add_add_eos_token(False)
    template = bundle.template()
    if template:
        writer.add_chat_template(template)


def _add_endings(writer: Any, description: BaseDescription, eos: int | None) -> None:
    """Write what ends an answer beside `eos`, and the repetition penalty; tell what GGUF has no place for."""
    more = [token for token in description.end_tokens if token != eos]
    for token, add in zip(more, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        add(token)
    settings = description.logits.changed
    if "repetition_penalty" in settings:
        writer.add_sampling_penalty_repeat(float(settings.pop("repetition_penalty")))
        writer.add_sampling_penalty_last_n(-1)  # the whole text, as in Hugging Face's
    lost = [*(f"end token {token}" for token in more[2:]), *settings]
    if lost:
        say(f"base.gguf has no place for {', '.join(lost)}; give them to llama.cpp with each request")


def _close(writer: Any, path: Path) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    say(f"wrote {path.name}")
