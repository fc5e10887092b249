"""Behaviour negation and steering: what weights below 0, multipliers and given weights must come to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mocae.policies import Mixture, Parts

NAMES = ("helpful", "harmless", "honest")
PARTS = Parts(NAMES)


@torch.no_grad()
def logits(mixture: Mixture, **options: Any) -> Tensor:
    batch = mixture.base.tokenizer(["Q: one?\nA:", "Q: and two?\nA:"], return_tensors="pt", padding=True)
    with mixture.routing(["", ""], **options):
        found: Tensor = mixture.base.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return found
