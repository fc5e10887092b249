"""Behaviour negation: what a weight below 0 must come to, through the bank, by PEFT and as a task vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mocae.bank import ExpertBank, load_peft
from mocae.merging import TaskVector, applied
from mocae.models import LoadedBase
from mocae.policies import Mixture, Policy
from tiny import tiny_llama, tiny_tokenizer, with_peft

NAMES = ("helpful", "harmless", "honest")


def tokens() -> dict[str, Tensor]:
    return dict(tiny_tokenizer()(["Q: one?\nA:", "Q: and two?\nA:"], return_tensors="pt", padding=True))


@torch.no_grad()
def plain_logits(model: Any) -> Tensor:
    batch = tokens()
    found: Tensor = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return found


def logits(mixture: Mixture, **options: Any) -> Tensor:
    with mixture.using(**options).routing(["", ""]):
        return plain_logits(mixture.base.model)


@pytest.mark.parametrize("name", NAMES)
def test_a_negated_expert_is_the_adapter_with_its_sign_turned(
    mixture: Mixture, upper: dict[str, Path], name: str
) -> None:
    peft_model = with_peft(tiny_llama(), upper[name])
    with torch.no_grad():
        for parameter_name, parameter in peft_model.named_parameters():
            if "lora_B" in parameter_name:
                parameter.neg_()
    negated = logits(mixture, weights={name: -1.0})
    torch.testing.assert_close(negated, plain_logits(peft_model), atol=1e-4, rtol=0)
    assert (negated - logits(mixture, weights={name: 1.0})).abs().max() > 1e-2


def test_a_negated_expert_is_the_base_less_its_task_vector(mixture: Mixture, upper: dict[str, Path]) -> None:
    vector = TaskVector.from_lora(load_peft(upper["honest"]))
    with applied(tiny_llama(), -0.5 * vector) as model:
        expected = plain_logits(model)
    torch.testing.assert_close(logits(mixture, weights={"honest": -0.5}), expected, atol=1e-4, rtol=0)


def test_an_expert_and_its_negation_are_the_base(upper: dict[str, Path]) -> None:
    model = tiny_llama()
    bank = ExpertBank.attach(model, {"there": upper["honest"], "back": upper["honest"]})
    mixture = Mixture(LoadedBase(model, tiny_tokenizer()), bank, _Unasked())
    both = logits(mixture, weights={"there": 1.0, "back": -1.0})
    torch.testing.assert_close(both, plain_logits(tiny_llama()), atol=1e-5, rtol=0)


def test_a_factor_of_0_leaves_the_mix_of_the_others(mixture: Mixture) -> None:
    out = logits(mixture, steer={"helpful": 0.0, "harmless": 0.0})
    torch.testing.assert_close(out, logits(mixture, weights={"honest": 1.0}), atol=1e-5, rtol=0)


def test_one_factor_for_all_changes_nothing(mixture: Mixture) -> None:
    out = logits(mixture, steer=dict.fromkeys(NAMES, 3.0))
    torch.testing.assert_close(out, logits(mixture), atol=1e-5, rtol=0)


class _Unasked(Policy):
    """A policy that must not be asked."""

    def route(self, batch: Any) -> Tensor:
        raise AssertionError("weights were given")
