"""Log-probabilities of choices, each from a whole pass of its own: what a generator must come to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mocae.models import Generator
from tiny import random_ids

PROMPTS = [random_ids(1, n, seed=n)[0].tolist() for n in (5, 7)]
CHOICES = [[[10, 20, 30], [40]], [[50, 60], [70, 80]]]


@torch.no_grad()
def one_by_one(model: Any) -> list[list[float]]:
    found = []
    for prompt, choices in zip(PROMPTS, CHOICES, strict=True):
        row = []
        for choice in choices:
            log_probs = model(input_ids=torch.tensor([prompt + choice])).logits[0].double().log_softmax(-1)
            row.append(float(sum(log_probs[len(prompt) - 1 + i, token] for i, token in enumerate(choice))))
        found.append(row)
    return found


def assert_scores(generator: Generator, expected: list[list[float]]) -> None:
    """Compare a generator's scores, all choices at once, with those of `one_by_one`."""
    assert isinstance(generator, Generator)
    for scores, row in zip(generator.log_probs(PROMPTS, CHOICES), expected, strict=True):
        assert [score.log_prob for score in scores] == pytest.approx(row, abs=1e-4)
