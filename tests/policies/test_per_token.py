"""Routing of every token: what must be equal to routing of whole prompts, and what must be refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.errors import ConfigError
from mocae.experts import pool_hidden
from mocae.models import LoadedBase, decoder_layers, layer_inputs
from mocae.policies import FixedPolicy, Mixture, PerPrompt, PromptBatch, Sureness, shape_weights
from reading_policy import ReadingPolicy
from tiny import ARCHITECTURES, tiny_adapter, tiny_llama, tiny_tokenizer

GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
TEXTS = ["Q: a long question, longer than the others?\nA:", "Q: b?\nA:", "Q: of middle length?\nA:"]


class TokenPolicy(ReadingPolicy):
    """The random router of the other tests, asked at every token; `top_k` as routers prune."""

    per_token = True

    def __init__(self, layer: int = 2, *, flat: bool = False, top_k: int | None = None, **options: Any) -> None:
        super().__init__(layer, **options)
        self.map = torch.zeros_like(self.map) if flat else self.map
        self.top_k = top_k

    def route(self, batch: PromptBatch) -> Tensor:
        return shape_weights(super().route(batch), top_k=self.top_k)

    def sureness(self, batch: PromptBatch) -> Sureness:
        sure = super().route(batch).amax(1)
        return Sureness(sure, torch.full_like(sure, torch.nan))


@pytest.fixture
def by_token(upper: dict[str, Path]) -> Iterator[Mixture]:
    base = LoadedBase(tiny_llama(), tiny_tokenizer())
    made = Mixture(base, ExpertBank.attach(base.model, upper), TokenPolicy())
    yield made
    made.release()


def tokenised(texts: list[str] = TEXTS) -> dict[str, Tensor]:
    return dict(tiny_tokenizer()(texts, return_tensors="pt", padding=True, return_token_type_ids=False))


def generate(mixture: Mixture, texts: list[str] = TEXTS, **options: Any) -> tuple[list[list[int]], Tensor]:
    batch = tokenised(texts)
    choice = {name: options.pop(name) for name in ("policy", "steer", "weights", "mode") if name in options}
    made = mixture.using(**choice).generate(**batch, **(GREEDY | options))
    new: list[list[int]] = made.ids[:, batch["input_ids"].shape[1] :].tolist()
    return new, made.weights


@torch.no_grad()
def spelled_out(mixture: Mixture, text: str, n: int, **shaping: Any) -> list[int]:
    """The same answer, token by token without a cache, each token weighed by hand."""
    policy = mixture.policy
    assert isinstance(policy, TokenPolicy)
    ids = tokenised([text])["input_ids"]
    plain, start = tiny_llama(), ids.shape[1]
    for _ in range(n):
        with layer_inputs(plain, 2, stop=False) as read:
            plain(ids)
        ends = range(1, ids.shape[1] + 1)
        rows = [pool_hidden(read[0][:, :end], torch.ones(1, end), pool="mean+last") for end in ends]
        alpha = shape_weights(policy.route(PromptBatch([""] * len(rows), torch.cat(rows))), **shaping)
        with mixture.bank.weights(alpha[None]):
            logits = mixture.base.model(ids).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    new: list[int] = ids[0, start:].tolist()
    return new


def test_every_token_has_its_own_weights(by_token: Mixture) -> None:
    tokens, _ = generate(by_token)
    assert tokens == [spelled_out(by_token, text, 6) for text in TEXTS]


def test_a_router_that_says_the_same_everywhere_is_one_for_whole_prompts(by_token: Mixture) -> None:
    tokens, alpha = generate(by_token, policy=TokenPolicy(flat=True))
    expected, same = generate(by_token, policy=FixedPolicy(torch.full((3,), 1 / 3)))
    assert tokens == expected
    torch.testing.assert_close(alpha, same)


def test_at_the_end_of_the_prompt_weights_are_those_of_the_prompt(by_token: Mixture) -> None:
    _, alpha = generate(by_token)
    _, expected = generate(by_token, policy=ReadingPolicy(2))
    torch.testing.assert_close(alpha, expected, atol=1e-5, rtol=1e-5)
    made = by_token.generate(**tokenised(), **GREEDY)
    assert made.confidence == pytest.approx(alpha.amax(1).tolist(), abs=1e-5)
    assert made.novelty == [None] * 3  # it does not say
    assert by_token.using(steer={"honest": 2.0}).generate(**tokenised(), **GREEDY).confidence == [None] * 3


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
def test_the_cache_changes_nothing(by_token: Mixture, options: dict[str, Any]) -> None:
    seen: list[int] = []
    handle = decoder_layers(by_token.base.model)[0].register_forward_pre_hook(lambda _, a: seen.append(a[0].shape[1]))
    tokens, alpha = generate(by_token)
    handle.remove()
    assert seen[1:] == [1] * 5  # one pass over the prompt, then one token at a time
    other, other_alpha = generate(by_token, **options)
    assert other == tokens
    torch.testing.assert_close(other_alpha, alpha, atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(by_token: Mixture) -> None:
    tokens, alpha = generate(by_token)
    for row, text in enumerate(TEXTS):
        one, one_alpha = generate(by_token, [text])
        assert one == [tokens[row]]
        torch.testing.assert_close(one_alpha[0], alpha[row], atol=1e-5, rtol=1e-5)


def test_steering_and_pruning_reach_every_token(by_token: Mixture) -> None:
    tokens, _ = generate(by_token, steer={"honest": 4.0})
    factor = torch.tensor([1.0, 1.0, 4.0])
    assert tokens == [spelled_out(by_token, text, 6, steer=factor) for text in TEXTS]
    by_token.policy = TokenPolicy(top_k=1)
    tokens, alpha = generate(by_token)
    assert ((alpha != 0).sum(1) == 1).all()
    assert tokens == [spelled_out(by_token, text, 6) for text in TEXTS]


def test_weights_given_outright_replace_it(by_token: Mixture) -> None:
    weights = {"helpful": 1.5, "honest": -2.0}
    tokens, alpha = generate(by_token, weights=weights)
    assert (tokens, alpha.tolist()) == (
        generate(by_token, weights=weights, policy=FixedPolicy(torch.zeros(3)))[0],
        [[1.5, 0.0, -2.0]] * 3,
    )


def test_several_answers_keep_to_their_prompt(by_token: Mixture) -> None:
    torch.manual_seed(0)
    tokens, alpha = generate(by_token, num_return_sequences=2, do_sample=True, top_k=1)
    expected, expected_alpha = generate(by_token)
    assert tokens == [row for row in expected for _ in range(2)]  # the likeliest token each time
    torch.testing.assert_close(alpha, expected_alpha, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["mistral", "gemma", "qwen3"])
def test_other_architectures_route_by_token(architecture: str, tmp_path: Path) -> None:
    model, tokenizer = ARCHITECTURES[architecture](), tiny_tokenizer()
    folders = {str(i): tiny_adapter(model, tmp_path / str(i), seed=i, layers_to_transform=[1]) for i in (1, 2)}
    mixture = Mixture(LoadedBase(model, tokenizer), ExpertBank.attach(model, folders), TokenPolicy(1, experts=2))
    tokens, _ = generate(mixture)
    assert generate(mixture, use_cache=False)[0] == tokens


@torch.no_grad()
@pytest.mark.parametrize("told", ["by the pass", "by probe", "no mask"])
def test_a_plain_pass_is_routed_by_token(by_token: Mixture, told: str) -> None:
    batch = tokenised(TEXTS[:1]) if told == "no mask" else tokenised()
    arguments = {"input_ids": batch["input_ids"]} if told == "no mask" else batch
    with by_token.routing([""] * len(batch["input_ids"]), probe=batch if told == "by probe" else None) as trace:
        logits = by_token.base.model(**arguments).logits[:, -1]
    assert trace.alpha is not None
    expected = [spelled_out(by_token, text, 1)[0] for text in TEXTS[: len(logits)]]
    assert logits.argmax(-1).tolist() == expected


def test_choices_are_read_one_by_one(by_token: Mixture) -> None:
    ids = tokenised(["Q: b?\nA:"])["input_ids"][0].tolist()
    choices = [[10, 20, 30], [40, 50]]
    (both,) = by_token.log_probs([ids], [choices])
    alone = [by_token.log_probs([ids], [[choice]])[0][0] for choice in choices]
    assert [score.log_prob for score in both] == pytest.approx([score.log_prob for score in alone], abs=1e-4)


def test_what_cannot_be_routed_by_token_is_refused(by_token: Mixture, whole: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"per-token routing cannot follow beams.*num_beams to 1"):
        generate(by_token, num_beams=2)
    batch = tokenised()
    mask = torch.ones(3, 1, 4, 4)
    with pytest.raises(ConfigError, match=r"per-token routing needs one of \(prompts, tokens\), given as `probe`"):
        with by_token.routing([""] * 3):
            by_token.base.model(batch["input_ids"], attention_mask=mask)
    assert by_token.bank.alpha is None
    with pytest.raises(ConfigError, match=r"a policy of the batch routes every token.*per_token to false"):
        PerPrompt([FixedPolicy(torch.ones(3)), by_token.policy])
    base = LoadedBase(tiny_llama(), tiny_tokenizer())
    low = Mixture(base, ExpertBank.attach(base.model, whole), TokenPolicy())
    with pytest.raises(ConfigError, match=r"an expert adapts layer 0, below layer 2 where the router reads.*per_token"):
        generate(low)
