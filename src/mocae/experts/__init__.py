"""Stage 1: fine-tuned experts, and the hidden states that describe prompts and experts."""

from mocae.experts.finetune import LoraSpec, Optimisation, TrainingRecord, finetune, inject
from mocae.experts.hidden import Pool, StopForward, layer_inputs, pool_hidden, pooled_states

__all__ = [
    "LoraSpec",
    "Optimisation",
    "Pool",
    "StopForward",
    "TrainingRecord",
    "finetune",
    "inject",
    "layer_inputs",
    "pool_hidden",
    "pooled_states",
]
