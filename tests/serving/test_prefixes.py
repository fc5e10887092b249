"""Prompts that begin alike are answered as without memory of each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from mocae.policies import FixedPolicy, Policy, Steered, SteeringVectors
from mocae.serving import Engine, Finished, Limits, Request
from mocae.serving.rows.prefixes import Prefixes
from reading_policy import ReadingPolicy
from serving_for_tests import TinyArtifact, answer_all, generated, tiny_artifact
from tiny import ARCHITECTURES, tiny_adapter, tiny_llama

SYSTEM = "You answer in short words and never in long ones, whoever asks and whatever it is they ask.\n"


def asked(artifact: TinyArtifact, **changes: Any) -> list[Request]:
    """Requests that begin alike, with every kind of policy; some longer than others, one that begins otherwise."""
    routed = artifact.mixture.policy
    fixed = FixedPolicy(torch.tensor([1.0, -0.5, 0.25]))
    policies: list[Policy] = [
        routed,
        Steered(routed, SteeringVectors(steer=torch.tensor([0.5, 2.0, 1.0]))),
        fixed,
        FixedPolicy(torch.zeros(3)),
    ]
    texts = [f"{SYSTEM}Q: {'very ' * (i % 5)}{i}?\nA:" for i in range(12)] + ["Q: and without?\nA:"]
    return [
        Request(artifact.mixture.base.tokenizer(text).input_ids, policies[i % 4], **({"max_tokens": 10} | changes))
        for i, text in enumerate(texts)
    ]


def texts_of(artifact: TinyArtifact, requests: list[Request]) -> list[str]:
    tokenizer = artifact.mixture.base.tokenizer
    return [str(tokenizer.decode(generated(artifact, one), skip_special_tokens=True)) for one in requests]


def same(ours: list[Finished], plain: list[Finished]) -> None:
    for mine, other in zip(ours, plain, strict=True):
        assert (mine.text, mine.reason, mine.n_tokens) == (other.text, other.reason, other.n_tokens)
        assert mine.weights == pytest.approx(other.weights, abs=1e-5)


def test_answers_are_those_of_an_engine_without(artifact: TinyArtifact) -> None:
    requests = asked(artifact)
    expected = texts_of(artifact, requests)
    with Engine(artifact.mixture, limits=Limits(prefix_bytes=0)) as engine:
        plain = answer_all(engine, requests)
    assert {answer.n_known_tokens for answer in plain} == {0}
    with Engine(artifact.mixture, limits=Limits(batch_size=5)) as engine:
        first, again = answer_all(engine, requests), answer_all(engine, requests)
        alone = [engine.answer(request) for request in requests]
    assert [answer.text for answer in plain] == expected
    for answers in (first, again, alone):
        same(answers, plain)
    n_common = len(artifact.mixture.base.tokenizer(SYSTEM).input_ids) // 32 * 32
    assert n_common == 64
    assert all(answer.n_known_tokens >= n_common for answer in alone[:-1])
    assert alone[-1].n_known_tokens == 0


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_remembers(architecture: str, tmp_path: Path) -> None:
    model = ARCHITECTURES[architecture](layers=3)
    adapters = {
        name: tiny_adapter(model, tmp_path / name, seed=i, layers_to_transform=[2]) for i, name in enumerate("abc")
    }
    artifact = tiny_artifact(adapters, model)
    requests = asked(artifact, max_tokens=5)
    with Engine(artifact.mixture) as engine:
        answer_all(engine, requests[:4])
        answers = [engine.answer(request) for request in requests]
    assert all(answer.n_known_tokens for answer in answers[:-1])
    assert [answer.text for answer in answers] == texts_of(artifact, requests)


def test_what_depends_on_weights_is_not_given_to_others(artifact: TinyArtifact) -> None:
    tokens = asked(artifact)[0].tokens
    with Engine(artifact.mixture) as engine:
        for policy, known in (
            (FixedPolicy(torch.tensor([1.0, 0.0, 0.0])), False),
            (FixedPolicy(torch.tensor([0.0, 1.0, 0.0])), False),
            (FixedPolicy(torch.tensor([1.0, 0.0, 0.0])), True),
            (ReadingPolicy(2), False),
            (ReadingPolicy(1), False),  # reads below where the first expert sits: other layers
            (ReadingPolicy(2), True),
            (ReadingPolicy(1), True),
        ):
            assert (engine.answer(Request(tokens, policy, max_tokens=1)).n_known_tokens > 0) == known


def test_a_router_that_reads_above_an_expert_shares_nothing(tmp_path: Path) -> None:
    model = tiny_llama(max_position_embeddings=256)
    artifact = tiny_artifact({name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("abc")})
    requests = asked(artifact)
    with Engine(artifact.mixture) as engine:
        answer_all(engine, requests)
        answers = answer_all(engine, requests)
    assert [answer.n_known_tokens > 0 for answer in answers[:4]] == [False, False, True, True]
    assert [answer.text for answer in answers] == texts_of(artifact, requests)


def test_sampled_answers_and_several_of_them_are_the_same(artifact: TinyArtifact) -> None:
    request = asked(artifact)[0]
    drawn = [replace(request, sampling=replace(request.sampling, temperature=1.0, seed=seed)) for seed in (1, 2, 3)]
    with Engine(artifact.mixture, limits=Limits(prefix_bytes=0)) as engine:
        plain = answer_all(engine, drawn)
    with Engine(artifact.mixture) as engine:
        engine.answer(request)
        known = answer_all(engine, drawn)
    assert all(answer.n_known_tokens for answer in known)
    same(known, plain)


def keep(prefixes: Prefixes, artifact: TinyArtifact, tokens: list[int], policy: Policy) -> None:
    cache = DynamicCache()
    with torch.no_grad():
        artifact.mixture.base.model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True)
    reach = prefixes.reach(policy, "", len(tokens))
    assert reach is not None
    prefixes.keep(tokens, reach, row=0, cache=cache, hidden=None)


def test_memory_stays_within_its_bound_and_the_oldest_is_forgotten(artifact: TinyArtifact) -> None:
    policy = FixedPolicy(torch.ones(3))
    block = 4 * 2 * 8 * 2 * 8 * 4  # layers, keys and values, tokens, heads, size, bytes
    prefixes = Prefixes(artifact.mixture, max_bytes=5 * block, block_tokens=8)
    first, second = [*range(20)], [*range(10), *range(30, 50)]
    keep(prefixes, artifact, first, policy)
    assert prefixes.n_bytes == 2 * block
    keep(prefixes, artifact, second, policy)  # the first eight tokens are shared
    assert prefixes.n_bytes == 4 * block
    reach = prefixes.reach(policy, "", 20)
    found = prefixes.find(first, reach)
    assert found is not None
    assert found.n_tokens == 16
    keep(prefixes, artifact, [*range(100, 124)], policy)
    assert prefixes.n_bytes == 5 * block
    assert prefixes.find(first, reach) is not None  # used last
    assert prefixes.find(second, reach) is None  # a third of it is left, and the rest was used least
    prefixes.clear()
    assert prefixes.n_bytes == 0
    assert prefixes.find(first, reach) is None


def test_less_than_half_a_prompt_is_not_taken_over(artifact: TinyArtifact) -> None:
    policy = FixedPolicy(torch.ones(3))
    prefixes = Prefixes(artifact.mixture, max_bytes=1 << 20, block_tokens=8)
    keep(prefixes, artifact, [*range(9)], policy)
    reach = prefixes.reach(policy, "", 16)
    assert prefixes.find([*range(8), *range(50, 58)], reach) is not None
    assert prefixes.find([*range(8), *range(50, 59)], reach) is None
    assert prefixes.find([*range(8)], reach) is None  # its last token has to be read
    assert prefixes.reach(policy, "", 8) is None
