"""Tiny random models, tokenizer and adapters shared by all tests; made on the spot, no network."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

PAD, EOS, BOS = 256, 257, 258
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEARS = (*ATTENTION, "gate_proj", "up_proj", "down_proj")

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def _random_model(
    model_class: type[PreTrainedModel],
    config_class: type[PreTrainedConfig],
    *,
    layers: int,
    hidden: int,
    vocab: int,
    seed: int,
    **options: Any,
) -> PreTrainedModel:
    settings: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,  # large enough for layers to matter in a model this small
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
    }
    config = config_class(**(settings | options))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model_class(config).eval()


def tiny_llama(layers: int = 4, hidden: int = 32, vocab: int = 300, seed: int = 0, **options: Any) -> LlamaForCausalLM:
    """Return a random Llama in fp32 and evaluation mode; equal seeds give equal weights."""
    model = _random_model(
        LlamaForCausalLM, LlamaConfig, layers=layers, hidden=hidden, vocab=vocab, seed=seed, **options
    )
    assert isinstance(model, LlamaForCausalLM)
    return model


def _builder(
    model_class: type[PreTrainedModel], config_class: type[PreTrainedConfig], **fixed: Any
) -> Callable[..., PreTrainedModel]:
    def build(layers: int = 2, hidden: int = 32, vocab: int = 300, seed: int = 0) -> PreTrainedModel:
        return _random_model(model_class, config_class, layers=layers, hidden=hidden, vocab=vocab, seed=seed, **fixed)

    return build


ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": _builder(LlamaForCausalLM, LlamaConfig),
    "mistral": _builder(MistralForCausalLM, MistralConfig, sliding_window=8),
    "gemma": _builder(GemmaForCausalLM, GemmaConfig, head_dim=16),
    "qwen2": _builder(Qwen2ForCausalLM, Qwen2Config),  # has biases on q, k, v
    "qwen3": _builder(Qwen3ForCausalLM, Qwen3Config, head_dim=16),
    "gemma2": _builder(Gemma2ForCausalLM, Gemma2Config, head_dim=16, sliding_window=8),  # norms around each part
    "gemma3": _builder(Gemma3ForCausalLM, Gemma3TextConfig, head_dim=16, sliding_window=8),
    "deepseek-llm": _builder(LlamaForCausalLM, LlamaConfig, num_key_value_heads=4, rms_norm_eps=1e-6),
}
"""Builders `(layers, hidden, vocab, seed) -> model` of the architectures that must work."""

tiny_deepseek_v3 = _builder(
    DeepseekV3ForCausalLM,
    DeepseekV3Config,
    num_key_value_heads=4,
    kv_lora_rank=8,
    q_lora_rank=8,
    qk_rope_head_dim=8,
    qk_nope_head_dim=8,
    v_head_dim=8,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    first_k_dense_replace=1,
    n_group=1,
    topk_group=1,
)
"""Low-rank attention, and from layer 1 up a sparse feed-forward block, which PEFT cannot adapt linear by linear."""
LATENT_ATTENTION = ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 259 tokens with pad, eos, bos, left padding and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>"])  # ids PAD, EOS, BOS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        padding_side="left",
        chat_template=_CHAT_TEMPLATE,
    )


def with_peft(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return a copy of `model` that wears the adapter as PEFT itself puts it on; `model` is left alone."""
    with _quiet_peft():
        return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


def random_ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Return random byte ids, shape (rows, tokens)."""
    return torch.randint(0, 256, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT reads an attribute that transformers 5.23 deprecates; nothing of ours does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def tiny_adapter(
    model: PreTrainedModel,
    folder: Path,
    seed: int = 0,
    r: int = 4,
    targets: Sequence[str] = ALL_LINEARS,
    **options: Any,
) -> Path:
    """Write a random LoRA adapter for `model` with PEFT itself and return its folder; `model` is left alone.

    `lora_B` is random too (PEFT starts it at zero). `options` go to `LoraConfig`, e.g. `lora_alpha`, `use_rslora`.
    """
    config = LoraConfig(
        r=r, target_modules=list(targets), **({"lora_alpha": 2 * r, "task_type": "CAUSAL_LM"} | options)
    )
    with _quiet_peft():
        peft_model = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    return folder
