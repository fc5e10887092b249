"""Stage 1: fine-tuned experts, and the hidden states that describe prompts and experts."""

from mocae.experts.finetune import Optimisation, TrainingRecord, finetune
from mocae.experts.hidden import Pool, StopForward, at_layer, layer_inputs, pool_hidden, pooled_states
from mocae.experts.lora import LoraSpec, trainable_adapter
from mocae.experts.pairs import inject

__all__ = [
    "LoraSpec",
    "Optimisation",
    "Pool",
    "StopForward",
    "TrainingRecord",
    "at_layer",
    "finetune",
    "inject",
    "layer_inputs",
    "pool_hidden",
    "pooled_states",
    "trainable_adapter",
]
