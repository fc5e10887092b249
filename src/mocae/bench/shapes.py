"""What is measured: a model of a named shape with random weights, or a real one, with random experts on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mocae.bank import LoraPair, LoraWeights
from mocae.calibration import AlignXRouter, CalibrationSet, RouterSettings, fit_latent_space, fit_router
from mocae.errors import ConfigError, unknown_name
from mocae.models import load_base

__all__ = ["SHAPES", "Shape", "load_model", "load_shape", "random_experts", "random_router", "random_tokenizer"]

_LATENT, _PROBES, _JUDGED = 256, 256, 300  # of a router: what recipes have by default, and a few hundred verdicts
_FIRST_EXPERT_STD = 0.02  # as large as the weights of a model before training: what is added is not lost in rounding


@dataclass(frozen=True, slots=True)
class Shape:
    """A model to measure and how.

    Attributes:
        name: of the shape, or the model's folder.
        folder: a real model's folder, None for random weights.
        llama: settings of `LlamaConfig`, empty for a real model.
        r: rank of each expert.
        n_experts: number of experts, on all linears of all decoder layers.
        prompt_tokens: tokens read before the first new one.
        new_tokens: tokens generated.
        batches: batch sizes that are measured.
    """

    name: str
    folder: Path | None = None
    llama: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    r: int = 16
    n_experts: int = 3
    prompt_tokens: int = 64
    new_tokens: int = 48
    batches: tuple[int, ...] = (1, 8, 32)


def _llama(hidden: int, inner: int, layers: int, heads: int, vocab: int, *, tied: bool) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "vocab_size": vocab,
            "tie_word_embeddings": tied,
            "max_position_embeddings": 4096,
        }
    )


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        shape.name: shape
        for shape in (
            Shape("tiny", llama=_llama(64, 128, 3, 4, 512, tied=True), r=4, prompt_tokens=8, new_tokens=6),
            Shape("97m", llama=_llama(768, 2048, 12, 12, 16_000, tied=True)),
            Shape("7b", llama=_llama(4096, 11_008, 32, 32, 32_000, tied=False)),
        )
    }
)
"""Shapes by name: `97m` is a Llama of 97 M parameters, `7b` has the shape of Llama-2-7B."""


def load_shape(name_or_path: str) -> Shape:
    """Return the shape of that name, or one for the model in that folder.

    Raises:
        ConfigError: neither a shape nor a folder with a model.
    """
    if name_or_path in SHAPES:
        return SHAPES[name_or_path]
    folder = Path(name_or_path).expanduser()
    if not (folder / "config.json").is_file():
        known = unknown_name("shape", name_or_path, SHAPES)
        raise ConfigError(f"--config {name_or_path!r}: {known} It is no folder with a model (config.json) either")
    return Shape(folder.resolve().name, folder=folder)


def load_model(shape: Shape, *, dtype: torch.dtype, device: torch.device, seed: int = 0) -> PreTrainedModel:
    """Return the shape's model in evaluation mode; equal seeds give equal weights."""
    if shape.folder is not None:
        names = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float16: "fp16"}
        return load_base(shape.folder, dtype=names[dtype], device=device).model
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)  # 7 B parameters in fp32 first would need twice the memory
        try:
            model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**shape.llama))
        finally:
            torch.set_default_dtype(before)
    model.eval()
    return model


def random_experts(model: nn.Module, shape: Shape, *, seed: int = 1) -> dict[str, LoraWeights]:
    """Return experts of the shape's rank on all linears but the output head, in the dtype of the model."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    generator = torch.Generator().manual_seed(seed)

    def factor(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
        return _FIRST_EXPERT_STD * torch.randn(rows, columns, generator=generator).to(like.dtype)

    return {
        f"expert-{k}": LoraWeights(
            name=f"expert-{k}",
            r=shape.r,
            lora_alpha=2 * shape.r,
            use_rslora=False,
            base_model=None,
            layers={
                name: LoraPair(
                    factor(shape.r, m.in_features, m.weight), factor(m.out_features, shape.r, m.weight), scaling=2.0
                )
                for name, m in linears.items()
            },
        )
        for k in range(shape.n_experts)
    }


def random_router(axes: Sequence[str], *, width: int, layer: int, seed: int = 3) -> AlignXRouter:
    """Return a router fitted on random states of the size that a recipe gives by default.

    Args:
        axes: names of the experts.
        width: of the hidden states; the router reads mean and last token of a prompt.
        layer: whose input it reads.
        seed: of the states and verdicts.
    """
    generator = torch.Generator().manual_seed(seed)
    settings = RouterSettings(l2=0.1)

    def drawn(rows: int) -> torch.Tensor:
        return torch.randn(rows, 2 * width, generator=generator)

    with torch.inference_mode(False), torch.enable_grad():
        states = drawn(_PROBES * len(axes))
        latent = fit_latent_space(states, [drawn(_PROBES) for _ in axes], k=_LATENT)
        clouds = list(latent.encode(states).split(_PROBES))
        labels = torch.arange(_JUDGED) % len(axes)
        acceptable = torch.rand(_JUDGED, len(axes), generator=generator) < 0.5
        data = CalibrationSet(drawn(_JUDGED), acceptable, labels, [""] * _JUDGED)
        fitted = fit_router(
            data, axes=axes, latent=latent, clouds=clouds, settings=settings, layer=layer, pool="mean+last"
        )
    return fitted.router


def random_tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """Return a tokenizer of a model's size for weights that stand for no language; nothing reads or writes with it."""
    words = Tokenizer(WordLevel({str(i): i for i in range(model.config.vocab_size)}, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0", pad_token="0")
