"""Stage 1: fine-tuned experts, and the hidden states that describe prompts and experts."""

from mocae.experts.finetune import finetune, train_supervised
from mocae.experts.hidden import Pool, pool_hidden, pooled_states
from mocae.experts.lora import LoraSpec, given_back, quiet_peft, trainable_adapter
from mocae.experts.methods import GIVEN_TO_TRAINERS, TRAINERS, TrainingMethod
from mocae.experts.pairs import inject
from mocae.experts.preference import finetune_preference, with_labels, with_rejected
from mocae.experts.trainer import Optimisation, TrainingRecord, save_adapter, with_room

__all__ = [
    "GIVEN_TO_TRAINERS",
    "TRAINERS",
    "LoraSpec",
    "Optimisation",
    "Pool",
    "TrainingMethod",
    "TrainingRecord",
    "finetune",
    "finetune_preference",
    "given_back",
    "inject",
    "pool_hidden",
    "pooled_states",
    "quiet_peft",
    "save_adapter",
    "train_supervised",
    "trainable_adapter",
    "with_labels",
    "with_rejected",
    "with_room",
]
