"""Tiny bases whose tokenizer, generation_config or chat template is unlike the others, as folders on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import GenerationConfig

from tiny import BOS, EOS, PAD, tiny_llama, tiny_tokenizer

_TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<eos>{% endfor %}"
_ASK = "{% if add_generation_prompt %}[assistant]{% endif %}"
PLAIN = _TURNS + _ASK
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}" + _ASK
WRITES_BOS = "{{ bos_token }}" + PLAIN
OPENS_THOUGHT = _TURNS + "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}"
HYBRID = (
    _TURNS
    + "{% if add_generation_prompt %}[assistant]{% if enable_thinking is defined and not enable_thinking %}"
    + "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Odd:
    """What is odd about a base; `said` are choices of the recipe, `eos` and `bos` what the tokenizer adds."""

    template: str | Mapping[str, str] | None = PLAIN
    generation: Mapping[str, Any] = field(default_factory=dict)
    bos: bool = False
    eos: bool = False
    pad: str = "<pad>"
    said: Mapping[str, Any] = field(default_factory=dict)


ODD: dict[str, Odd] = {
    "another end token": Odd(generation={"eos_token_id": 110}),
    "several end tokens": Odd(generation={"eos_token_id": [EOS, 100, 101, 120]}),
    "adds its end token": Odd(eos=True, bos=True),
    "bos twice": Odd(template=WRITES_BOS, bos=True),
    "bos not in the template": Odd(bos=True),
    "repetition penalty, pad ends": Odd(generation={"repetition_penalty": 1.7}, pad="<eos>"),
    "no token twice": Odd(generation={"no_repeat_ngram_size": 1, "begin_suppress_tokens": [*range(100, 130)]}),
    "suppressed": Odd(generation={"suppress_tokens": [*range(0, 200, 2)], "bad_words_ids": [[33], [35, 37]]}),
    "a least length": Odd(generation={"min_new_tokens": 6, "eos_token_id": [*range(250)]}),
    "sampled by default": Odd(generation={"do_sample": True, "temperature": 1.6, "top_k": 12, "top_p": 0.8}),
    "refuses system": Odd(template=REFUSES_SYSTEM),
    "drops system": Odd(template=DROPS_SYSTEM, pad="<eos>"),
    "opens a thought": Odd(template=OPENS_THOUGHT),
    "hybrid": Odd(template=HYBRID),
    "thinks, as chosen": Odd(template=HYBRID, said={"template_options": {"enable_thinking": True}}),
    "several templates": Odd(template={"short": PLAIN, "thinking": OPENS_THOUGHT}, said={"chat_template": "thinking"}),
    "chosen penalty": Odd(said={"generation": {"repetition_penalty": 1.4, "end_tokens": ["A"]}}, pad="<eos>"),
    "no template": Odd(template=None, generation={"eos_token_id": 110, "repetition_penalty": 1.3}),
}


def write_odd(odd: Odd, folder: Path) -> Path:
    """Write a base to `folder`, which `load_base(folder, **odd.said)` loads, and return it."""
    model, tokenizer = tiny_llama(vocab=len(tiny_tokenizer()), max_position_embeddings=256), tiny_tokenizer()
    model.save_pretrained(folder)
    pieces = [*(["<bos>"] if odd.bos else []), "$A", *(["<eos>"] if odd.eos else [])]
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=" ".join(pieces), special_tokens=[("<bos>", BOS), ("<eos>", EOS)]),
        ]
    )
    tokenizer.pad_token = odd.pad
    tokenizer.chat_template = dict(odd.template) if isinstance(odd.template, Mapping) else odd.template
    tokenizer.save_pretrained(folder)
    settings = {"eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": BOS, **odd.generation}
    GenerationConfig(**settings).save_pretrained(folder)
    return folder
