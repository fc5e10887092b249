"""The bank on a model: what must be equal, and what must be refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from mocae.bank import ExpertBank, LoraPair, LoraWeights, load_peft
from mocae.errors import ConfigError, ModelMismatchError
from tiny import (
    ALL_LINEARS,
    ARCHITECTURES,
    LATENT_ATTENTION,
    PAD,
    random_ids,
    tiny_adapter,
    tiny_deepseek_v3,
    tiny_llama,
    with_peft,
)

NAMES = ("all", "rslora", "pattern")
ALPHA = torch.tensor([0.6, -0.8, 1.5])


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor, **inputs: Any) -> Tensor:
    result: Tensor = model(ids, **inputs).logits
    return result


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same_values(model: nn.Module, before: dict[str, Tensor]) -> bool:
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(value, before[key]) for key, value in after.items())


# --- equalities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(3))
def test_one_hot_is_that_expert(bank: ExpertBank, model: LlamaForCausalLM, folders: dict[str, Path], k: int) -> None:
    ids = random_ids(2, 7)
    expected = logits(with_peft(tiny_llama(), folders[NAMES[k]]), ids)
    assert (expected - logits(tiny_llama(), ids)).abs().max() > 0.1
    with bank.weights(torch.eye(3)[k]):
        close(logits(model, ids), expected)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "deepseek-v3"])
def test_every_architecture_runs_its_experts(architecture: str, tmp_path: Path) -> None:
    build, targets = ARCHITECTURES.get(architecture, tiny_deepseek_v3), ALL_LINEARS
    if architecture == "deepseek-v3":
        targets = LATENT_ATTENTION
    model, ids = build(), random_ids(2, 12)
    folders = {
        str(seed): tiny_adapter(model, tmp_path / str(seed), seed=seed, r=seed + 1, targets=targets) for seed in (1, 2)
    }
    before, base = values(model), logits(model, ids)
    expected = [logits(with_peft(model, folder), ids) for folder in folders.values()]
    bank = ExpertBank.attach(model, folders)
    assert torch.equal(logits(model, ids), base)
    for k in range(2):
        with bank.weights(torch.eye(2)[k]):
            close(logits(model, ids), expected[k])
    with bank.merged(torch.tensor([0.3, 0.9])):
        merged = logits(model, ids)
    with bank.weights(torch.tensor([0.3, 0.9])):
        close(logits(model, ids), merged)
    bank.detach()
    assert torch.equal(logits(model, ids), base)
    assert same_values(model, before)


def test_off_and_zero_are_the_base_bit_for_bit(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids = random_ids(2, 7)
    base = logits(tiny_llama(), ids)
    assert torch.equal(logits(model, ids), base)
    bank.set_weights(torch.zeros(2, 3))
    assert torch.equal(logits(model, ids), base)
    bank.set_weights(ALPHA)
    with bank.off():
        assert torch.equal(logits(model, ids), base)
    assert bank.alpha is ALPHA


def test_constant_weights_are_the_merged_model(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids, before = random_ids(2, 7), values(model)
    with bank.weights(ALPHA):
        mixed = logits(model, ids)
        with bank.merged(ALPHA) as merged:
            close(logits(merged, ids), mixed)
            exported = values(merged)
        assert torch.equal(logits(model, ids), mixed)
    assert same_values(model, before)
    plain = tiny_llama()
    plain.load_state_dict(exported)
    close(logits(plain, ids), mixed)


def test_merging_with_all_shares_of_one_expert_is_that_expert_merged_by_peft(
    bank: ExpertBank, model: LlamaForCausalLM, folders: dict[str, Path]
) -> None:
    expected = with_peft(tiny_llama(), folders["pattern"]).merge_and_unload().state_dict()
    with bank.merged(torch.eye(3)[2]):
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[key])


def test_rows_that_differ_are_each_row_alone(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids = random_ids(3, 6)
    alpha = torch.tensor([[1.0, 0.0, 0.0], [0.2, -0.5, 2.0], [0.0, 0.0, 0.0]])
    with bank.weights(alpha):
        together = logits(model, ids)
    for row in range(3):
        with bank.weights(alpha[row : row + 1]):
            close(logits(model, ids[row : row + 1])[0], together[row])


def test_constant_per_token_weights_are_per_prompt_weights(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids, alpha = random_ids(2, 5), torch.stack([ALPHA, ALPHA.flip(0)])
    with bank.weights(alpha):
        expected = logits(model, ids)
    with bank.weights(alpha[:, None].expand(2, 5, 3)):
        close(logits(model, ids), expected)


def test_per_token_weights_act_on_their_tokens_only(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids, alpha = random_ids(1, 6), torch.zeros(1, 6, 3)
    alpha[:, 4:] = ALPHA
    with bank.weights(alpha):
        mixed = logits(model, ids)
    base = logits(tiny_llama(), ids)
    close(mixed[:, :4], base[:, :4])
    assert (mixed[:, 4:] - base[:, 4:]).abs().amax(-1).min() > 0.01


def test_padding_changes_nothing(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids = random_ids(1, 5)
    padded = torch.cat([torch.full((1, 3), PAD), ids], dim=1)
    mask = torch.cat([torch.zeros(1, 3, dtype=torch.long), torch.ones_like(ids)], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with bank.weights(ALPHA[None]):
        close(logits(model, padded, attention_mask=mask, position_ids=positions)[:, 3:], logits(model, ids))


def test_cached_generation_is_uncached_generation(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    ids, mask = random_ids(3, 5), torch.ones(3, 5, dtype=torch.long)
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "attention_mask": mask}
    with bank.weights(torch.stack([ALPHA, ALPHA.flip(0), torch.zeros(3)])):
        cached = model.generate(ids, use_cache=True, **settings)
        assert torch.equal(cached, model.generate(ids, use_cache=False, **settings))
    assert torch.equal(cached[2], tiny_llama().generate(ids, use_cache=True, **settings)[2])
    assert not torch.equal(cached, tiny_llama().generate(ids, use_cache=True, **settings))


def test_fused_and_unfused_agree_under_inference_mode_and_bf16(folders: dict[str, Path]) -> None:
    ids, found = random_ids(2, 6), []
    for fused in (True, False):
        model = tiny_llama().to(torch.bfloat16)
        bank = ExpertBank.attach(model, folders, fused=fused)
        with torch.inference_mode():
            base = model(ids).logits
            assert torch.equal(base, tiny_llama().to(torch.bfloat16)(ids).logits)
            with bank.weights(ALPHA):
                found.append(model(ids).logits.float())
    assert found[0].dtype == torch.float32
    assert (found[0] - found[1]).norm() < 0.03 * found[1].norm()  # bf16 has 8 bits


def test_a_product_made_in_a_context_does_not_outlive_it(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    attention, x = model.model.layers[0].self_attn, torch.randn(1, 3, 32)
    with torch.no_grad(), bank.weights(ALPHA):
        expected = attention.v_proj(x)
        with bank.weights(-ALPHA):
            attention.q_proj(x)
        assert torch.equal(attention.v_proj(x), expected)


# --- weights set in the middle of a pass, and gradients ------------------------------------------------------------


def test_weights_set_on_the_way_act_from_there_upward(
    bank: ExpertBank, model: LlamaForCausalLM, folders: dict[str, Path]
) -> None:
    ids = random_ids(2, 5)
    expert = load_peft(folders["all"])
    upper = {name: pair for name, pair in expert.layers.items() if int(name.split(".")[2]) >= 2}
    other = tiny_llama()
    reference = ExpertBank.attach(other, {"upper": LoraWeights("upper", 4, 8, False, None, upper)})
    handle = model.model.layers[2].register_forward_pre_hook(lambda *_: bank.set_weights(torch.eye(3)[0]))
    with reference.weights(torch.ones(1)), bank.off():
        close(logits(model, ids), logits(other, ids))
    handle.remove()


def test_per_token_routing_in_a_hook_survives_decoding(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    def route(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows, tokens = args[0].shape[:2]
        bank.set_weights(ALPHA.expand(rows, tokens, 3))

    ids, mask = random_ids(2, 5), torch.ones(2, 5, dtype=torch.long)
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "attention_mask": mask}
    with bank.weights(ALPHA):
        expected = model.generate(ids, **settings)
    handle = model.model.layers[0].register_forward_pre_hook(route)
    assert torch.equal(model.generate(ids, **settings), expected)
    handle.remove()


def test_the_gradient_of_the_weights_is_the_difference_quotient(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    model.requires_grad_(False).double()
    bank.detach()
    experts = {"a": _random_expert(model, 1), "b": _random_expert(model, 2)}
    bank = ExpertBank.attach(model, experts)
    ids = random_ids(2, 4)

    def loss(alpha: Tensor) -> Tensor:
        with bank.weights(alpha):
            result: Tensor = model(ids, labels=ids).loss
            return result

    for start in (torch.zeros(2, 2), torch.tensor([[0.5, -0.3], [1.0, 0.2]])):
        alpha = start.clone().requires_grad_()
        loss(alpha).backward()
        step = torch.zeros(2, 2)
        step[1, 0] = 5e-3
        with torch.no_grad():
            quotient = (loss(start + step) - loss(start - step)) / 1e-2
        assert alpha.grad is not None
        assert float(alpha.grad[1, 0]) == pytest.approx(float(quotient), rel=1e-2)  # norms run in fp32
        assert abs(float(quotient)) > 1e-4


def _random_expert(model: nn.Module, seed: int) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LoraPair(
            0.1 * torch.randn(2, m.in_features, generator=generator),
            0.1 * torch.randn(m.out_features, 2, generator=generator),
            scaling=2.0,
        )
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and name != "lm_head"
    }
    return LoraWeights(str(seed), 2, 4, use_rslora=False, base_model=None, layers=layers)


# --- attach, detach, sizes -----------------------------------------------------------------------------------------


def test_detach_restores_everything(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    fresh, ids = tiny_llama(), random_ids(1, 4)
    assert same_values(model, values(fresh))  # attached already: names and values are the base model's
    bank.set_weights(ALPHA)
    bank.detach()
    bank.detach()
    assert same_values(model, values(fresh))
    assert all("forward" not in vars(m) for m in model.modules())
    assert torch.equal(logits(model, ids), logits(fresh, ids))
    storages = [p.untyped_storage().data_ptr() for p in model.parameters()]
    assert len(set(storages)) == len(storages)
    with pytest.raises(ConfigError, match="this bank is detached"):
        bank.set_weights(ALPHA)


def test_a_forward_that_was_wrapped_before_is_kept(model: LlamaForCausalLM, folders: dict[str, Path]) -> None:
    linear, calls = model.model.layers[0].self_attn.q_proj, []
    original: Callable[[Tensor], Tensor] = linear.forward

    def wrapped(input: Tensor) -> Tensor:
        calls.append(1)
        return original(input)

    linear.forward = wrapped  # type: ignore[method-assign]
    bank = ExpertBank.attach(model, folders)
    calls.clear()
    with bank.weights(ALPHA):
        logits(model, random_ids(1, 3))
    assert calls == [1]
    bank.detach()
    assert vars(linear)["forward"] is wrapped


def test_attach_that_fails_leaves_nothing_behind(
    model: LlamaForCausalLM, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mocae.bank import build as module

    built = []

    class Failing(module.Stack):
        def __init__(self, *args: Any) -> None:
            if len(built) == 3:
                raise MemoryError
            super().__init__(*args)
            built.append(self)

    before = values(model)
    monkeypatch.setattr(module, "Stack", Failing)
    with pytest.raises(MemoryError):
        ExpertBank.attach(model, folders)
    assert all("forward" not in vars(m) for m in model.modules())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == len(list(model.parameters()))
    assert same_values(model, before)


def test_a_failure_inside_a_context_puts_things_back(bank: ExpertBank, model: LlamaForCausalLM) -> None:
    before = values(model)
    bank.set_weights(ALPHA)
    with pytest.raises(KeyError), bank.merged(ALPHA):
        raise KeyError
    with pytest.raises(KeyError), bank.off():
        raise KeyError
    assert same_values(model, before)
    assert bank.alpha is ALPHA


def test_sizes_and_lowest_layer(model: LlamaForCausalLM, folders: dict[str, Path]) -> None:
    experts = {name: load_peft(folder) for name, folder in folders.items()}
    n_parameters = sum(expert.n_parameters for expert in experts.values())
    bank = ExpertBank.attach(model, experts)
    assert (bank.names, bank.first_layer) == (NAMES, 0)
    assert (bank.n_parameters, bank.n_bytes) == (n_parameters, 4 * n_parameters)
    bank.detach()
    assert ExpertBank.attach(model, {"pattern": experts["pattern"]}).first_layer == 2


# --- refusals --------------------------------------------------------------------------------------------------------


def test_attaching_twice_or_nothing_is_refused(model: LlamaForCausalLM, folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="at least one expert, received none"):
        ExpertBank.attach(model, {})
    ExpertBank.attach(model, folders)
    with pytest.raises(ConfigError, match="already attached to this LlamaForCausalLM"):
        ExpertBank.attach(model, folders)


def test_experts_of_another_model_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelMismatchError, match=r"'model.layers.0.*\(out, in\) = .*64.* the adapter has \("):
        ExpertBank.attach(tiny_llama(hidden=64), folders)
    with pytest.raises(ModelMismatchError, match=r"expert 'all' adapts 'model.layers.2.*there is no such module"):
        ExpertBank.attach(tiny_llama(layers=2), folders)
    pair = LoraPair(torch.ones(1, 32), torch.ones(32, 1), scaling=1.0)
    norm = LoraWeights("n", 1, 1.0, use_rslora=False, base_model="b/c", layers={"model.norm": pair})
    with pytest.raises(ModelMismatchError, match=r"'model.norm'.*it is a LlamaRMSNorm.*b/c"):
        ExpertBank.attach(tiny_llama(), {"n": norm})


def test_an_expert_that_is_not_finite_is_refused(model: LlamaForCausalLM, folders: dict[str, Path]) -> None:
    expert = copy.deepcopy(load_peft(folders["all"]))
    next(iter(expert.layers.values())).A[0, 0] = float("nan")
    with pytest.raises(ModelMismatchError, match=r"expert 'broken' is not finite at 'model.layers.0"):
        ExpertBank.attach(model, {"broken": expert})


@pytest.mark.parametrize(
    ("alpha", "told"),
    [
        (torch.ones(2, 4), r"shape \(2, 4\).*K = 3 experts \(all, rslora, pattern\)"),
        (torch.ones(()), r"shape \(\)"),
        (torch.tensor([[0.0, 1.0, float("nan")]]), r"at \[0, 2\] is nan \(expert 'pattern'\)"),
        (torch.tensor([float("-inf"), 0.0, 0.0]), r"at \[0\] is -inf \(expert 'all'\)"),
    ],
)
def test_bad_weights_are_refused_and_change_nothing(bank: ExpertBank, alpha: Tensor, told: str) -> None:
    bank.set_weights(ALPHA)
    with pytest.raises(ConfigError, match=told):
        bank.set_weights(alpha)
    assert bank.alpha is ALPHA


@pytest.mark.parametrize(
    ("shape", "told"), [((1, 3), "weights have 1 rows.*(2, 5, 32)"), ((2, 4, 3), "for 4 tokens.*has 5")]
)
def test_weights_of_another_batch_are_refused_by_the_pass(
    bank: ExpertBank, model: LlamaForCausalLM, shape: tuple[int, ...], told: str
) -> None:
    with bank.weights(torch.ones(shape)), pytest.raises(ConfigError, match=told):
        logits(model, random_ids(2, 5))


def test_inside_merged_nothing_else_can_be_done(bank: ExpertBank) -> None:
    with bank.merged(ALPHA):
        with pytest.raises(ConfigError, match="inside merged"):
            bank.set_weights(ALPHA)
        with pytest.raises(ConfigError, match="already in force"), bank.merged(ALPHA):
            pass
        with pytest.raises(ConfigError, match="inside merged"):
            bank.detach()
    with pytest.raises(ConfigError, match=r"shape \(2,\).*of shape \(K,\)$"), bank.merged(ALPHA[:2]):
        pass


def test_a_tied_head_takes_experts_but_cannot_be_merged() -> None:
    model, ids = tiny_llama(layers=1, tie_word_embeddings=True), random_ids(1, 3)
    pair = LoraPair(torch.ones(1, 32), torch.ones(300, 1), scaling=1.0)
    expert = LoraWeights("head", 1, 1.0, use_rslora=False, base_model=None, layers={"lm_head": pair})
    base = logits(model, ids)
    bank = ExpertBank.attach(model, {"head": expert})
    assert bank.first_layer == 1
    with bank.weights(torch.ones(1)):
        assert (logits(model, ids) - base).abs().max() > 0.1
    with pytest.raises(ModelMismatchError, match="'lm_head' is tied to another module"), bank.merged(torch.ones(1)):
        pass


def test_a_model_moved_under_the_bank_is_noticed(model: LlamaForCausalLM, folders: dict[str, Path]) -> None:
    bank = ExpertBank.attach(model, folders)
    model.double()
    with bank.weights(ALPHA), pytest.raises(ModelMismatchError, match="moved or replaced while a bank is attached"):
        logits(model, random_ids(1, 3))
