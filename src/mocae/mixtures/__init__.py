"""Mixtures of other papers, to be compared with: PEFT's X-LoRA and Arrow over the same experts, and H3Fusion."""

from mocae.mixtures.arrow import on_arrow
from mocae.mixtures.h3fusion import (
    H3FusionMixture,
    H3Losses,
    load_mixtures,
    on_h3fusion,
    save_mixtures,
    train_h3fusion,
)
from mocae.mixtures.training import MixtureTraining
from mocae.mixtures.xlora import XLoraMixture, on_xlora, scaling_head, train_xlora

__all__ = [
    "H3FusionMixture",
    "H3Losses",
    "MixtureTraining",
    "XLoraMixture",
    "load_mixtures",
    "on_arrow",
    "on_h3fusion",
    "on_xlora",
    "save_mixtures",
    "scaling_head",
    "train_h3fusion",
    "train_xlora",
]
