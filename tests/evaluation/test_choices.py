from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from mocae.bank import ExpertBank
from mocae.errors import DataError
from mocae.evaluation.choices import TRUTHFULQA_PRIMER, choice_log_probs, score_multiple_choice
from mocae.metrics import multiple_choice_scores
from mocae.models import LoadedBase, PlainModel
from mocae.policies import Mixture, Policy, PromptBatch
from mocae.types import Example, prompt_id
from tiny import ARCHITECTURES, tiny_adapter, tiny_llama, tiny_tokenizer

PROMPTS = ["Q: Who is it?\nA:", "Q: Why do they fly so very low?\nA:", "Q: When?\nA:"]
CHOICES = [[" me", " nobody at all", "!"], [" to see", " they do not"], [" now", " tomorrow at ten", " no", " x"]]


def one_by_one(base: LoadedBase, prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> list[list[float]]:
    """Return log-probabilities from a whole pass a choice: what must come out."""
    found = []
    for prompt, texts in zip(prompts, choices, strict=True):
        start = len(base.tokenizer(prompt).input_ids)
        row = []
        for text in texts:
            ids = torch.tensor([base.tokenizer(prompt + text).input_ids])
            with torch.no_grad():
                log_probs = base.model(ids).logits[0].double().log_softmax(-1)
            row.append(float(sum(log_probs[i - 1, ids[0, i]] for i in range(start, ids.shape[1]))))
        found.append(row)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_equals_one_pass_a_choice(architecture: str, batch_tokens: int) -> None:
    base = LoadedBase(ARCHITECTURES[architecture](), tiny_tokenizer())
    found = choice_log_probs(PlainModel(base), PROMPTS, CHOICES, batch_tokens=batch_tokens)
    for ours, theirs in zip(found, one_by_one(base, PROMPTS, CHOICES), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_question_longer_than_the_context_keeps_its_end() -> None:
    base = LoadedBase(tiny_llama(max_position_embeddings=24), tiny_tokenizer())
    long, choice = "x" * 30 + PROMPTS[0], " me"
    found = choice_log_probs(PlainModel(base), [long, PROMPTS[2]], [[choice], [" a"]])
    kept = (long + choice)[-25:]
    assert found[0] == pytest.approx(one_by_one(base, [kept[: -len(choice)]], [[choice]])[0], abs=1e-4)
    assert found[1] == pytest.approx(one_by_one(base, PROMPTS[2:], [[" a"]])[0], abs=1e-4)


class ByIdentity(Policy):
    """A policy that reads each prompt, so that rows of one batch have different weights."""

    def route(self, prompts: PromptBatch) -> torch.Tensor:
        shares = torch.tensor([int(i[:2], 16) / 255 for i in prompts.ids])
        return torch.stack([shares, 1 - shares], 1)


def test_every_prompt_of_a_mixture_has_its_own_weights(tmp_path: Path) -> None:
    model = tiny_llama()
    folders = {name: tiny_adapter(model, tmp_path / name, seed=i) for i, name in enumerate("ab")}
    base = LoadedBase(model, tiny_tokenizer())
    bank = ExpertBank.attach(model, folders)
    ids = [prompt_id(prompt) for prompt in PROMPTS]
    policy = ByIdentity()
    found = choice_log_probs(Mixture(base, bank, policy), PROMPTS, CHOICES, ids=ids)
    for i, weights in enumerate(policy.route(PromptBatch(ids, None))):
        with bank.weights(weights):
            assert found[i] == pytest.approx(one_by_one(base, PROMPTS[i : i + 1], CHOICES[i : i + 1])[0], abs=1e-4)
    assert bank.alpha is None


def test_scores_are_those_of_the_metric() -> None:
    base = LoadedBase(tiny_llama(max_position_embeddings=1024), tiny_tokenizer())
    mc1, mc2 = {"me": 1, "you": 0}, {"me": 1, "us": 1, "you": 0}
    examples = [Example("Who?", "honesty", "question", facts={"mc1": mc1, "mc2": mc2})]
    judged = score_multiple_choice(PlainModel(base), examples)
    prompt = f"{TRUTHFULQA_PRIMER}Q: Who?\nA:"
    me, us, you = one_by_one(base, [prompt], [[" me", " us", " you"]])[0]
    assert judged[0]["mc1"].score == multiple_choice_scores([me], [you]).mc1
    assert judged[0]["mc2"].score == pytest.approx(multiple_choice_scores([me, us], [you]).mc2, abs=1e-5)


def test_nothing_to_score_is_refused() -> None:
    base = LoadedBase(tiny_llama(layers=1), tiny_tokenizer())
    with pytest.raises(DataError, match="got 0 prompts and 0 lists"):
        choice_log_probs(PlainModel(base), [], [])
    with pytest.raises(DataError, match="prompt 0: prompt, choices or one of them is empty"):
        choice_log_probs(PlainModel(base), ["Q"], [["a", ""]])
    with pytest.raises(DataError, match="facts hold no 'mc1' and 'mc2' choices"):
        score_multiple_choice(PlainModel(base), [Example("Who?", "honesty", "question")])
    with pytest.raises(DataError, match="no questions"):
        score_multiple_choice(PlainModel(base), [])
