from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from choices_for_tests import assert_scores, one_by_one
from mocae.bank import ExpertBank
from mocae.errors import ConfigError, ModelMismatchError
from mocae.models import LoadedBase
from mocae.trinityx import TrinityXMixture, TrinityXRouter, feed_forward_blocks, routed
from tiny import ALL_LINEARS, ATTENTION, PAD, random_ids, tiny_adapter, with_peft

IDS = random_ids(3, 9, seed=4)


def logits(base: LoadedBase, ids: Tensor = IDS, **options: Any) -> Tensor:
    with torch.no_grad():
        return base.model(input_ids=ids, **options).logits


def ask(mixture: TrinityXMixture, ids: Tensor, mask: Tensor | None = None) -> tuple[list[list[int]], Tensor]:
    mask = torch.ones_like(ids) if mask is None else mask
    out, weights, *_ = mixture.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    return out[:, ids.shape[1] :].tolist(), weights


def test_one_expert_is_that_expert(base: LoadedBase, experts: dict[str, Path], make_router: Any) -> None:
    expected = logits(LoadedBase(with_peft(base.model, experts["a"]), base.tokenizer))
    bank = ExpertBank.attach(base.model, {"a": experts["a"]})
    with routed(bank, make_router(random=True, gamma=(0.3,))):
        torch.testing.assert_close(logits(base), expected, atol=1e-5, rtol=1e-5)
    bank.detach()


def test_an_untrained_router_is_the_uniform_bank(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    with bank.weights(torch.full((3,), 1 / 3)):
        expected = logits(base)
    with routed(bank, make_router()):
        torch.testing.assert_close(logits(base), expected, atol=1e-5, rtol=1e-5)


def test_each_token_of_each_block_has_its_own_weights(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    router = make_router(random=True)
    inputs: dict[int, Tensor] = {}
    for layer, block in feed_forward_blocks(bank).items():
        block.register_forward_pre_hook(lambda _, args, layer=layer: inputs.__setitem__(layer, args[0]))
    with routed(bank, router) as seen:
        logits(base)
        assert [alpha.shape for alpha in seen] == [(3, 9, 3), (3, 9, 3)]
        for alpha, layer in zip(seen, (2, 3), strict=True):
            torch.testing.assert_close(alpha, router.alpha(inputs[layer], layer))
    assert seen[0].std(1).max() > 0.01
    assert (seen[0] - seen[1]).abs().max() > 0.01


def test_a_gain_of_zero_is_no_norm(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    with routed(bank, make_router(random=True)):
        expected = logits(base)
    with routed(bank, make_router(random=True, norm=True)):
        assert torch.equal(logits(base), expected)
    router = make_router(random=True, norm=True)
    router.gain.fill_(1.0)
    with routed(bank, router):
        assert not torch.allclose(logits(base), expected)


def test_afterwards_the_base_model_is_as_before(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    before = logits(base)
    with routed(bank, make_router(random=True, norm=True)):
        assert not torch.equal(logits(base), before)
    assert torch.equal(logits(base), before)
    with pytest.raises(IndexError), routed(bank, make_router(random=True, norm=True)):
        logits(base, IDS + 1000)
    assert torch.equal(logits(base), before)


def test_with_the_cache_as_without(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    router = make_router(random=True, top_k=2)
    answers, _ = ask(TrinityXMixture(base, bank, router), IDS)
    ids = IDS
    with routed(bank, router):
        for _ in range(6):
            ids = torch.cat([ids, logits(base, ids, use_cache=False)[:, -1:].argmax(-1)], dim=1)
    assert answers == ids[:, IDS.shape[1] :].tolist()


def test_padded_as_alone(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    mixture = TrinityXMixture(base, bank, make_router(random=True))
    lengths = (9, 4, 6)
    padded, mask = torch.full_like(IDS, PAD), torch.zeros_like(IDS)
    for row, length in enumerate(lengths):
        padded[row, 9 - length :], mask[row, 9 - length :] = IDS[row, :length], 1
    together, weights = ask(mixture, padded, mask)
    for row, length in enumerate(lengths):
        alone, weight = ask(mixture, IDS[row : row + 1, :length])
        assert together[row] == alone[0]
        torch.testing.assert_close(weights[row : row + 1], weight, atol=1e-5, rtol=1e-5)


def test_choices_are_scored_with_every_token_routed(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    mixture = TrinityXMixture(base, bank, make_router(random=True))
    with routed(bank, mixture.router):
        expected = one_by_one(base.model)
    assert_scores(mixture, expected)
    assert expected != one_by_one(base.model)
    mixture.release()
    mixture.release()
    with pytest.raises(ConfigError, match="detached"):
        bank.set_weights(None)


def test_reported_weights_are_means_over_layers_and_prompt_tokens(
    base: LoadedBase, bank: ExpertBank, make_router: Any
) -> None:
    router = make_router(random=True, gamma=(1.0, 2.0, 3.0))
    mixture = TrinityXMixture(base, bank, router)
    _, weights = ask(mixture, IDS)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    with routed(bank, router) as seen:
        logits(base)
        expected = torch.stack([router.fuse(alpha) for alpha in seen]).mean((0, 2))
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-5)
    assert mixture.experts == ("a", "b", "c")


@pytest.mark.parametrize("targets", [ATTENTION, ALL_LINEARS, ("q_proj", "up_proj")])
def test_experts_on_attention_are_refused(base: LoadedBase, tmp_path: Path, make_router: Any, targets: Any) -> None:
    folder = tiny_adapter(base.model, tmp_path / "attention", targets=targets)
    bank = ExpertBank.attach(base.model, {"a": folder})
    with pytest.raises(ModelMismatchError, match=r"layer 0 is adapted in model\.layers\.0\.self_attn; train"):
        feed_forward_blocks(bank)
    with pytest.raises(ModelMismatchError, match="feed-forward"), routed(bank, make_router(gamma=(1.0,))):
        pass
    bank.detach()


def test_a_router_of_other_layers_or_experts_is_refused(base: LoadedBase, bank: ExpertBank) -> None:
    gamma = torch.ones(3)
    elsewhere = TrinityXRouter("abc", layers=[0, 1], hidden_size=32, gamma=gamma)
    message = r"the router has layers \(0, 1\), the experts adapt \(2, 3\)"
    with pytest.raises(ModelMismatchError, match=message), routed(bank, elsewhere):
        pass
    others = TrinityXRouter("abd", layers=[2, 3], hidden_size=32, gamma=gamma)
    with pytest.raises(ModelMismatchError, match=r"experts \('a', 'b', 'd'\), the bank holds \('a', 'b', 'c'\)"):
        TrinityXMixture(base, bank, others)
