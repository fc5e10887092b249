"""Routing inside the pass: what must be equal to routing beforehand, and what must be refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.errors import ConfigError
from mocae.experts import pooled_states
from mocae.models import Generator, LoadedBase, PlainModel, decoder_layers
from mocae.policies import FixedPolicy, Mixture, OraclePolicy
from reading_policy import ReadingPolicy
from tiny import ARCHITECTURES, random_ids, tiny_adapter, tiny_llama, tiny_tokenizer, with_peft

NAMES = ("helpful", "harmless", "honest")
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
TEXTS = ["Q: a long question, longer than the others?\nA:", "Q: b?\nA:", "Q: of middle length?\nA:"]


def tokenised(texts: list[str] = TEXTS, **options: Any) -> dict[str, Tensor]:
    batch = tiny_tokenizer()(texts, return_tensors="pt", padding=True, return_token_type_ids=False, **options)
    return dict(batch)


def generate(mixture: Mixture, texts: list[str] = TEXTS, **options: Any) -> tuple[list[list[int]], Tensor]:
    """New tokens and weights of each prompt."""
    batch = tokenised(texts)
    choice = {name: options.pop(name) for name in ("policy", "steer", "weights", "mode") if name in options}
    made = mixture.using(**choice).generate(**batch, **(GREEDY | options))
    return made.ids[:, batch["input_ids"].shape[1] :].tolist(), made.weights


def test_threads_wait_for_each_other(tmp_path: Path) -> None:
    model = tiny_llama()
    bank = ExpertBank.attach(
        model, {name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate(NAMES)}
    )
    mixture = Mixture(LoadedBase(model, tiny_tokenizer()), bank, FixedPolicy(torch.zeros(3)))
    alone = [generate(mixture, weights={name: 1.0})[0] for name in NAMES]
    assert alone[0] != alone[1] != alone[2]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda i: generate(mixture, weights={NAMES[i % 3]: 1.0})[0], range(24)))
    assert together == [alone[i % 3] for i in range(24)]


def routed_beforehand(mixture: Mixture, policy: ReadingPolicy, texts: list[str] = TEXTS) -> Tensor:
    """Weights from the base model's hidden states, each prompt read alone."""
    assert policy.reads is not None
    plain = tiny_llama()
    states = [
        pooled_states(plain, mixture.base.tokenizer, [t], layer=policy.reads.layer, pool="mean+last") for t in texts
    ]
    return (torch.cat(states) @ policy.map).softmax(1)


@torch.no_grad()
def with_weights(mixture: Mixture, alpha: Tensor, texts: list[str] = TEXTS, **options: Any) -> list[list[int]]:
    batch = tokenised(texts)
    with mixture.bank.weights(alpha):
        out = mixture.base.model.generate(**batch, **(GREEDY | options))  # type: ignore[operator]
    new: list[list[int]] = out[:, batch["input_ids"].shape[1] :].tolist()
    return new


def passes_of_layer(model: Any, layer: int) -> list[int]:
    """A list that grows by the number of tokens of each pass through a decoder layer."""
    seen: list[int] = []
    decoder_layers(model)[layer].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    return seen


# --- equalities -------------------------------------------------------------------------------------------------


def test_routing_in_the_pass_is_routing_beforehand(mixture: Mixture, policy: ReadingPolicy) -> None:
    seen = passes_of_layer(mixture.base.model, 0)
    tokens, alpha = generate(mixture)
    assert len(seen) == 6  # the prompts, then one token at a time: no pass of its own for routing
    assert seen[1:] == [1] * 5
    expected = routed_beforehand(mixture, policy)
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=1e-5)
    assert (alpha.amax(0) - alpha.amin(0) > 0.05).any()  # prompts do get different weights
    assert tokens == with_weights(mixture, expected)
    assert tokens != with_weights(mixture, torch.zeros(3))


def test_routing_in_the_pass_is_probe_mode(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, alpha = generate(mixture)
    seen = passes_of_layer(mixture.base.model, 0)
    above = passes_of_layer(mixture.base.model, 3)
    monkeypatch.setattr(ExpertBank, "first_layer", property(lambda _: 0))
    probed, probe_alpha = generate(mixture)
    assert (len(seen), len(above)) == (7, 6)  # one pass more, of the lower layers alone
    assert probed == tokens
    torch.testing.assert_close(probe_alpha, alpha, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 3, 4])
def test_experts_on_every_layer_are_probed(whole: dict[str, Path], layer: int) -> None:
    base, policy = LoadedBase(tiny_llama(), tiny_tokenizer()), ReadingPolicy(layer)
    mixture = Mixture(base, ExpertBank.attach(base.model, whole), policy)
    seen = passes_of_layer(base.model, 0)
    tokens, alpha = generate(mixture)
    assert len(seen) == (6 if layer == 0 else 7)  # what enters layer 0 is the base model's in any case
    expected = routed_beforehand(mixture, policy)
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=1e-5)
    assert tokens == with_weights(mixture, expected)


@pytest.mark.parametrize("probed", [False, True])
def test_a_batch_is_each_prompt_alone(mixture: Mixture, monkeypatch: pytest.MonkeyPatch, probed: bool) -> None:
    if probed:
        monkeypatch.setattr(ExpertBank, "first_layer", property(lambda _: 0))
    tokens, alpha = generate(mixture)
    for row, text in enumerate(TEXTS):  # alone there is no padding
        one, one_alpha = generate(mixture, [text])
        assert one == [tokens[row]]
        torch.testing.assert_close(one_alpha[0], alpha[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_the_cache_changes_nothing(mixture: Mixture, options: dict[str, Any]) -> None:
    tokens, alpha = generate(mixture)
    other, other_alpha = generate(mixture, **options)
    assert other == tokens
    torch.testing.assert_close(other_alpha, alpha, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_routes_in_the_pass(architecture: str, tmp_path: Path) -> None:
    model, tokenizer = ARCHITECTURES[architecture](), tiny_tokenizer()
    folders = {
        str(seed): tiny_adapter(model, tmp_path / str(seed), seed=seed, layers_to_transform=[1]) for seed in (1, 2)
    }
    policy = ReadingPolicy(1, pool="last", experts=2)
    states = pooled_states(model, tokenizer, TEXTS, layer=1, pool="last")
    mixture = Mixture(LoadedBase(model, tokenizer), ExpertBank.attach(model, folders), policy)
    tokens, alpha = generate(mixture)
    assert len(policy.read) == 1
    torch.testing.assert_close(alpha, (states @ policy.map).softmax(1), atol=1e-5, rtol=1e-5)
    assert tokens == with_weights(mixture, alpha)


def test_the_base_policy_is_the_base_model_bit_for_bit(mixture: Mixture) -> None:
    batch = tokenised()
    with torch.no_grad(), mixture.using(FixedPolicy(torch.zeros(3))).routing([""] * 3) as trace:
        logits = mixture.base.model(**batch).logits
    with torch.no_grad():
        assert torch.equal(logits, tiny_llama()(**batch).logits)
    assert trace.alpha is not None
    assert trace.alpha.tolist() == [[0.0] * 3] * 3
    plain = PlainModel(LoadedBase(tiny_llama(), tiny_tokenizer()))
    expected = plain.generate(**batch, **GREEDY)
    assert torch.equal(mixture.using(FixedPolicy(torch.zeros(3))).generate(**batch, **GREEDY).ids, expected.ids)
    assert expected.weights.shape == (3, 0)
    assert expected.confidence == expected.novelty == [None] * 3


@pytest.mark.parametrize("k", range(3))
def test_one_expert_alone_is_that_adapter_in_peft(mixture: Mixture, upper: dict[str, Path], k: int) -> None:
    batch = tokenised()
    expected = with_peft(tiny_llama(), upper[NAMES[k]]).generate(**batch, **GREEDY, pad_token_id=256)
    assert torch.equal(mixture.using(FixedPolicy(torch.eye(3)[k])).generate(**batch, **GREEDY).ids, expected)
    assert torch.equal(mixture.using(weights={NAMES[k]: 1.0}).generate(**batch, **GREEDY).ids, expected)


def test_the_oracle_goes_by_the_identity_of_each_prompt(mixture: Mixture) -> None:
    oracle = OraclePolicy({"a": [False, True, True], "b": [False] * 3, "c": [False, False, True]}, 3)
    tokens, alpha = generate(mixture, policy=oracle, ids=["a", "b", "c"])
    torch.testing.assert_close(alpha, torch.tensor([[0.0, 1, 0], [1 / 3] * 3, [0, 0, 1]]))
    assert tokens == with_weights(mixture, alpha)
    with pytest.raises(ConfigError, match=r"policy 'oracle': the experts' answers to prompt '' were not judged"):
        generate(mixture, policy=oracle)


def test_steering_multiplies_before_normalising(mixture: Mixture) -> None:
    tokens, alpha = generate(mixture)
    for nothing in ({"helpful": 1.0}, dict.fromkeys(NAMES, 1.0), {}):
        same, same_alpha = generate(mixture, steer=nothing)
        assert same == tokens
        assert torch.equal(same_alpha, alpha)
    steered = alpha * torch.tensor([0.0, 1.0, 3.0])
    steered = steered / steered.sum(1, keepdim=True)
    other, other_alpha = generate(mixture, steer={"helpful": 0.0, "honest": 3.0})
    torch.testing.assert_close(other_alpha, steered)
    assert other == with_weights(mixture, steered)


@pytest.mark.parametrize("weights", [{"harmless": 0.5}, {"helpful": 1.5, "honest": -2.0}, {}], ids=str)
def test_weights_replace_the_policy(mixture: Mixture, policy: ReadingPolicy, weights: dict[str, float]) -> None:
    tokens, alpha = generate(mixture, weights=weights)
    expected = torch.tensor([[weights.get(name, 0.0) for name in NAMES]] * 3)
    assert torch.equal(alpha, expected)
    assert tokens == with_weights(mixture, expected)
    assert policy.read == []


@pytest.mark.parametrize("route", ["in the pass", "probe", "fixed"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_return_sequences": 2, "do_sample": True, "top_k": 0},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_beams_and_several_answers_keep_the_weights_of_their_prompt(
    mixture: Mixture, monkeypatch: pytest.MonkeyPatch, route: str, options: dict[str, Any]
) -> None:
    if route == "probe":
        monkeypatch.setattr(ExpertBank, "first_layer", property(lambda _: 0))
    policy = FixedPolicy(torch.tensor([0.5, -1.0, 2.0])) if route == "fixed" else None
    _, alpha = generate(mixture, policy=policy)
    torch.manual_seed(0)
    tokens, found = generate(mixture, policy=policy, **options)
    torch.testing.assert_close(found, alpha, atol=1e-6, rtol=1e-6)  # one row a prompt
    torch.manual_seed(0)
    rows = max(options.get("num_beams", 1), options.get("num_return_sequences", 1))
    assert tokens == with_weights(mixture, alpha.repeat_interleave(rows, dim=0), **options)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("told", ["keyword", "position", "by probe"])
def test_a_plain_pass_is_routed_with_its_own_mask(mixture: Mixture, side: str, told: str) -> None:
    _, alpha = generate(mixture)
    batch = tokenised(padding_side=side)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    width = torch.eye(ids.shape[1], dtype=torch.bool)
    causal = width.cumsum(0).bool() & (mask[:, None, None].bool() | width)  # (prompts, 1, tokens, tokens)
    with torch.no_grad(), mixture.routing([""] * 3, probe=batch if told == "by probe" else None) as trace:
        assert trace.alpha is None
        if told == "position":
            mixture.base.model(ids, mask)
        else:
            mixture.base.model(ids, attention_mask=mask if told == "keyword" else causal)
        assert mixture.bank.alpha is not None
        mixture.base.model(ids[:, -1:])  # a later pass does not route again
    assert trace.alpha is not None
    torch.testing.assert_close(trace.alpha, alpha, atol=1e-5, rtol=1e-5)


def test_a_pass_told_no_mask_has_no_padding(mixture: Mixture, policy: ReadingPolicy) -> None:
    ids = random_ids(2, 7)
    with torch.no_grad(), mixture.routing(["", ""]) as trace:
        mixture.base.model(ids)
    with torch.no_grad(), mixture.routing(["", ""]) as masked:
        mixture.base.model(ids, attention_mask=torch.ones_like(ids))
    assert trace.alpha is not None
    assert masked.alpha is not None
    assert torch.equal(trace.alpha, masked.alpha)


# --- what is left behind, and what is refused -------------------------------------------------------------------


def hooks(mixture: Mixture) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in mixture.base.model.modules())


@pytest.mark.parametrize("before", [None, torch.tensor([0.1, -0.2, 0.3])], ids=["off", "on"])
def test_weights_from_before_come_back(mixture: Mixture, before: Tensor | None) -> None:
    mixture.bank.set_weights(before)
    generate(mixture)
    assert mixture.bank.alpha is before
    generate(mixture, weights={"honest": 1.0})
    assert mixture.bank.alpha is before
    with pytest.raises(RuntimeError, match="stopped"), mixture.using(FixedPolicy(torch.ones(3))).routing([""] * 3):
        raise RuntimeError("stopped")
    assert mixture.bank.alpha is before
    handle = decoder_layers(mixture.base.model)[3].register_forward_pre_hook(lambda *_: [][1])
    with pytest.raises(IndexError):
        generate(mixture)
    handle.remove()
    assert mixture.bank.alpha is before
    assert hooks(mixture) == 0


def test_a_policy_that_fails_leaves_the_weights_as_they_were(mixture: Mixture, policy: ReadingPolicy) -> None:
    policy.map = policy.map * torch.nan
    with pytest.raises(ConfigError, match="weights must be finite"):
        generate(mixture)
    assert mixture.bank.alpha is None
    assert hooks(mixture) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steer": {"honest": 2.0}, "weights": {"honest": 1.0}}, "give one of them"),
        ({"steer": {"honset": 2.0}}, r"unknown expert 'honset'. Known: .*Did you mean 'honest'"),
        ({"weights": {"kind": 2.0}}, r"unknown expert 'kind'"),
        ({"steer": {"honest": float("nan")}}, r"steer.honest: got nan; it should be a finite number"),
        ({"weights": {"honest": float("inf")}}, r"weights.honest: got inf; it should be a finite number"),
        ({"steer": {"honest": -1.0}}, r"steer.honest: got -1.0; it should be greater than or equal to 0"),
        ({"prefill_chunk_size": 4}, r"first pass reads \(3, 4\) \(prompts, tokens\).*whole prompts in one pass"),
        ({"policy": ReadingPolicy(5)}, r"layer 5 asked for; the model has 4 decoder layers"),
        ({"policy": FixedPolicy(torch.ones(2))}, r"holds K = 3 experts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_refused(mixture: Mixture, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        generate(mixture, **options)
    assert mixture.bank.alpha is None


def test_a_mask_that_is_not_of_tokens_is_refused(mixture: Mixture) -> None:
    batch = tokenised()
    causal = torch.ones(3, 1, batch["input_ids"].shape[1], batch["input_ids"].shape[1], dtype=torch.bool)
    with (
        pytest.raises(ConfigError, match=r"the prompts' mask is \(3, 1, \d+, \d+\).*given as `probe`"),
        mixture.routing([""] * 3),
    ):
        mixture.base.model(batch["input_ids"], attention_mask=causal)


def test_probe_mode_needs_the_prompts(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertBank, "first_layer", property(lambda _: 1))
    message = r"an expert adapts layer 1, below layer 2 where the router reads: give the tokenised prompts as `probe`"
    with pytest.raises(ConfigError, match=message), mixture.routing([""] * 3):
        pass


def test_a_mixture_and_a_plain_model_are_generators(mixture: Mixture) -> None:
    assert isinstance(mixture, Generator)
    assert isinstance(PlainModel(mixture.base), Generator)
    assert mixture.experts == NAMES


def test_a_mixture_with_another_choice_shares_all_else(mixture: Mixture, policy: ReadingPolicy) -> None:
    other = mixture.using(weights={"honest": 1.0}, mode="merged")
    assert (other.base, other.bank, other.mode) == (mixture.base, mixture.bank, "merged")
    assert (mixture.policy, mixture.mode) == (policy, "stacked")
    calls: list[str] = []
    owner = Mixture(mixture.base, mixture.bank, policy, on_release=lambda: calls.append("released"))
    owner.using(FixedPolicy(torch.ones(3))).release()
    assert calls == ["released"]
    assert generate(mixture)[0] == generate(owner)[0]  # the bank was the owner's to take off, and is on


def test_threads_of_several_mixtures_over_one_bank_wait_for_each_other(mixture: Mixture) -> None:
    others = [mixture.using(weights={name: 1.0}) for name in NAMES]
    alone = [generate(other)[0] for other in others]
    assert alone[0] != alone[1] != alone[2]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda i: generate(others[i % 3])[0], range(12)))
    assert together == [alone[i % 3] for i in range(12)]


def test_detached_it_is_the_base_model(mixture: Mixture) -> None:
    ids = random_ids(2, 5)
    mixture.bank.set_weights(torch.ones(3))
    mixture.release()
    mixture.release()
    with torch.no_grad():
        assert torch.equal(mixture.base.model(ids).logits, tiny_llama()(ids).logits)


# --- stacked or merged ------------------------------------------------------------------------------------------


def _shared(mixture: Mixture) -> dict[str, float]:
    return dict(zip(mixture.experts, (0.5, -0.2, 0.7), strict=True))


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS], ids=["one", "batch of equal weights"])
def test_merged_answers_what_stacked_answers(mixture: Mixture, texts: list[str]) -> None:
    merges = _merges(mixture)
    stacked, alpha = generate(mixture, texts, weights=_shared(mixture), mode="stacked")
    assert not merges
    merged, beta = generate(mixture, texts, weights=_shared(mixture), mode="merged")
    assert len(merges) == 1
    assert stacked == merged
    assert torch.equal(alpha, beta)
    assert stacked != with_weights(mixture, torch.zeros(3), texts)


def test_a_routed_prompt_is_merged_in_the_middle_of_its_pass(mixture: Mixture) -> None:
    before = {key: value.clone() for key, value in mixture.base.model.state_dict().items()}
    stacked = generate(mixture, TEXTS[:1], mode="stacked")
    merged = generate(mixture, TEXTS[:1], mode="merged")
    assert stacked[0] == merged[0]
    torch.testing.assert_close(stacked[1], merged[1])
    assert all(torch.equal(value, before[key]) for key, value in mixture.base.model.state_dict().items())
    assert mixture.bank.alpha is None


def test_auto_merges_long_answers_of_one_mixture(mixture: Mixture) -> None:
    mixture.mode = "auto"
    merges = _merges(mixture)
    generate(mixture, weights=_shared(mixture))  # short
    generate(mixture, max_length=4096, max_new_tokens=None, stop_strings=["a"], tokenizer=mixture.base.tokenizer)
    assert not merges  # short, and prompts that are routed apart
    long = {"max_new_tokens": 300, "stopping_criteria": [lambda ids, _: torch.ones(len(ids), dtype=torch.bool)]}
    generate(mixture, weights=_shared(mixture), **long)
    assert len(merges) == 1
    generate(mixture, weights=_shared(mixture), mode="stacked", **long)
    assert len(merges) == 1


def test_rows_that_differ_are_not_merged(mixture: Mixture) -> None:
    with pytest.raises(ConfigError, match="rows with different weights cannot be merged"):
        generate(mixture, mode="merged")
    assert mixture.bank.alpha is None


def _merges(mixture: Mixture) -> list[Tensor]:
    """A list that grows by the weights of each mixture that is merged."""
    seen, merged = [], mixture.bank.merged

    def note(alpha: Tensor) -> Any:
        seen.append(alpha)
        return merged(alpha)

    mixture.bank.merged = note  # type: ignore[method-assign]
    return seen
