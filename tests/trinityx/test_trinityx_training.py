from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.errors import DataError, TrainingError
from mocae.models import GateTraining, LoadedBase
from mocae.trinityx import LossWeights, TrinityXRouter, routed, train_router
from tiny import tiny_adapter

NONE = LossWeights(gating=0.0, regularisation=0.0, entropy=0.0, kl=0.0)
WORDS = ("aaaa", "mmmm", "zzzz")
ROWS = [(f"{word * (1 + i % 3)} ", "ok", axis) for i in range(4) for axis, word in enumerate(WORDS)]


def train(base: LoadedBase, bank: ExpertBank, router: TrinityXRouter, **options: Any) -> GateTraining:
    settings: dict[str, Any] = {
        "rows": ROWS,
        "weights": NONE,
        "learning_rate": 0.05,
        "epochs": 1,
        "batch_size": 4,
        "max_length": 64,
        "seed": 0,
        "expert_norms": torch.ones(len(bank.names)),
    }
    return train_router(base, bank, router.requires_grad_(True), **(settings | options))


def mean_gates(base: LoadedBase, bank: ExpertBank, router: TrinityXRouter, prompt: str) -> torch.Tensor:
    ids = torch.tensor([base.tokenizer(prompt)["input_ids"]])
    with torch.no_grad(), routed(bank, router) as seen:
        base.model(input_ids=ids)
        return torch.stack(seen).mean((0, 1, 2))


def test_the_language_loss_alone_moves_the_router_and_nothing_else(
    base: LoadedBase, bank: ExpertBank, make_router: Any
) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    experts = [tensor.clone() for tensor in bank.tensors()]
    router = make_router(norm=True)
    record = train(base, bank, router, epochs=2)
    assert record.n_steps == 6
    assert record.gradient_norm > 0
    assert router.weight.abs().max() > 0
    assert router.gain.abs().max() > 0
    assert torch.equal(router.gamma, torch.ones(3))
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(bank.tensors(), experts, strict=True))
    assert all(parameter.grad is None for parameter in base.model.parameters())
    assert bank.alpha is None


def test_training_lowers_the_language_loss(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    record = train(base, bank, make_router(), epochs=10, batch_size=12)
    assert record.last_loss < record.first_loss


def test_one_expert_a_token_is_trained_by_the_language_loss(
    base: LoadedBase, bank: ExpertBank, make_router: Any
) -> None:
    dense, one = make_router(), make_router(top_k=1)
    expected = train(base, bank, dense, epochs=10, batch_size=12).language_gradient
    record = train(base, bank, one, epochs=10, batch_size=12)
    assert record.language_gradient > 0.1 * expected
    assert record.last_loss < record.first_loss


def test_a_router_that_only_its_added_losses_move_is_refused(
    base: LoadedBase, bank: ExpertBank, make_router: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_gradient(self: TrinityXRouter, alpha: torch.Tensor) -> torch.Tensor:
        kept = alpha * torch.zeros_like(alpha).scatter(-1, alpha.topk(1, dim=-1).indices, 1.0)
        return kept / kept.sum(-1, keepdim=True)  # 1, up to rounding, whatever the gate says

    monkeypatch.setattr(TrinityXRouter, "fuse", without_gradient)
    message = r"TrinityX router: it received no gradient from the language-model loss \(norm \d.* do not depend on its"
    with pytest.raises(TrainingError, match=message):
        train(base, bank, make_router(), weights=LossWeights(), epochs=4)


def test_collapse_is_that_of_the_weights_in_use(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    options: dict[str, Any] = {"learning_rate": 1e-6}  # gates stay even, so that importance decides for every token
    record = train(base, bank, make_router(gamma=(1.0, 1.1, 1.0), top_k=1), **options)
    assert record.collapsed
    assert record.entropy == pytest.approx(0, abs=1e-6)
    record = train(base, bank, make_router(gamma=(1.0, 1.1, 1.0)), **options)
    assert not record.collapsed
    assert record.entropy > 0.99


def test_the_same_seed_gives_the_same_router(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    one, two, other = make_router(), make_router(), make_router()
    assert train(base, bank, one) == train(base, bank, two)
    train(base, bank, other, seed=1)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)


def test_the_gating_loss_drives_the_gate_to_the_axis(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    router = make_router()
    record = train(base, bank, router, weights=LossWeights(10.0, 0.0, 0.0, 0.0), epochs=8)
    for axis, word in enumerate(WORDS):
        assert mean_gates(base, bank, router, f"{word * 2} ")[axis] > 0.8
    assert not record.collapsed
    assert record.entropy > 0.8


def test_one_expert_for_everything_is_called_collapse(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    rows = [(prompt, response, 1) for prompt, response, _ in ROWS]
    router = make_router()
    record = train(base, bank, router, rows=rows, weights=LossWeights(10.0, 0.0, 0.0, 0.0), epochs=4, learning_rate=0.2)
    assert mean_gates(base, bank, router, "mm").argmax() == 1
    assert record.collapsed
    assert record.entropy < 0.1


def test_regularisation_turns_to_the_smallest_expert(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    router = make_router()
    norms = torch.tensor([5.0, 5.0, 1.0])
    train(base, bank, router, weights=LossWeights(0.0, 5.0, 0.0, 0.0), expert_norms=norms, epochs=4)
    assert mean_gates(base, bank, router, "mm").argmax() == 2


def test_the_entropy_term_sharpens(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    def spread(weight: float) -> float:
        router = make_router()
        train(base, bank, router, weights=LossWeights(0.0, 0.0, weight, 0.0), epochs=6)
        ids = torch.tensor([base.tokenizer("amz")["input_ids"]])
        with torch.no_grad(), routed(bank, router) as seen:
            base.model(input_ids=ids)
            gates = torch.stack(seen)
        return float(-(gates * gates.log()).sum(-1).mean())

    assert spread(5.0) < spread(0.0)


def test_no_gradient_is_refused(base: LoadedBase, tmp_path: Path, make_router: Any) -> None:
    folder = tiny_adapter(base.model, tmp_path / "zero", targets=("down_proj",), layers_to_transform=[2, 3])
    bank = ExpertBank.attach(base.model, {"a": folder, "b": folder})
    with torch.no_grad():
        for tensor in list(bank.tensors())[1::2]:
            tensor.zero_()
    with pytest.raises(
        TrainingError, match=r"it received no gradient from .*; its experts make no difference to the loss"
    ):
        train(base, bank, make_router(gamma=(1.0, 1.0)), rows=[(p, r, 0) for p, r, _ in ROWS])
    bank.detach()


def test_a_loss_that_is_not_finite_is_refused_with_its_step(
    base: LoadedBase, bank: ExpertBank, make_router: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = torch.tensor([float("inf"), 1.0, 1.0])
    with pytest.raises(TrainingError, match=r"not finite at step 1 \(loss inf, .*lower its learning rate"):
        train(base, bank, make_router(), weights=LossWeights(0.0, 1.0, 0.0, 0.0), expert_norms=norms)


def test_gates_that_are_not_finite_are_refused_with_their_step(
    base: LoadedBase, bank: ExpertBank, make_router: Any
) -> None:
    with pytest.raises(TrainingError, match=r"not finite at step 2 \(the weight at .* is nan \(expert 'a'\)"):
        train(base, bank, make_router(), learning_rate=float("inf"))


def test_no_rows_are_refused(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    with pytest.raises(DataError, match="needs training rows, got none"):
        train(base, bank, make_router(), rows=[])


def test_rows_without_room_for_a_response_are_left_out(base: LoadedBase, bank: ExpertBank, make_router: Any) -> None:
    long = ("x" * 100, "ok", 0)
    with pytest.raises(DataError, match=re.escape("all 2 rows fill max_length = 64 tokens")):
        train(base, bank, make_router(), rows=[long, long])
    with_long, without = make_router(), make_router()
    train(base, bank, with_long, rows=[*ROWS, long], batch_size=1)
    train(base, bank, without, rows=ROWS, batch_size=1)
    assert torch.equal(with_long.weight, without.weight)
