"""Stage 1: fine-tuned experts, and the hidden states that describe prompts and experts."""

from mocae.experts.blocks import finetune_blocks, load_blocks
from mocae.experts.finetune import finetune
from mocae.experts.forward_only import finetune_forward_only
from mocae.experts.hidden import Pool, pool_hidden, pooled_states
from mocae.experts.lora import LoraSpec, given_back, quiet_peft, trainable_adapter
from mocae.experts.pairs import inject
from mocae.experts.preference import finetune_preference, with_rejected
from mocae.experts.prefix import PrefixPool
from mocae.experts.trainer import Optimisation, TrainingRecord
from mocae.models import COLLAPSED, LabelledRow, Steps, batch_of, encode_rows, gate_entropy, take_steps

__all__ = [
    "COLLAPSED",
    "LabelledRow",
    "LoraSpec",
    "Optimisation",
    "Pool",
    "PrefixPool",
    "Steps",
    "TrainingRecord",
    "batch_of",
    "encode_rows",
    "finetune",
    "finetune_blocks",
    "finetune_forward_only",
    "finetune_preference",
    "gate_entropy",
    "given_back",
    "inject",
    "load_blocks",
    "pool_hidden",
    "pooled_states",
    "quiet_peft",
    "take_steps",
    "trainable_adapter",
    "with_rejected",
]
