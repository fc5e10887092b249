from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from mocae.errors import ConfigError, ModelMismatchError
from mocae.judges import build_judge
from mocae.judges.hub_moderation import TEMPLATE, ModerationJudge
from mocae.judges.hub_yes_no import YesNoJudge
from mocae.types import Answer, Example
from tiny import EOS, PAD, tiny_llama, tiny_tokenizer

CATEGORIES = ("violence", "theft", "fraud")
HARMFUL = [Answer(Example(f"Prompt {i}", "a", "harmful"), "short" if i % 2 else "a longer answer") for i in range(5)]
QUESTIONS = [Answer(Example(f"Question {i}?", "a", "question"), "x" * (1 + 3 * i)) for i in range(5)]


def classifier(**options: Any) -> LlamaForSequenceClassification:
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=PAD,
        eos_token_id=EOS,
        id2label=dict(enumerate(CATEGORIES)),
        label2id={c: i for i, c in enumerate(CATEGORIES)},
        problem_type="multi_label_classification",
        **options,
    )
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    classifier().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def probabilities(answer: Answer) -> dict[str, float]:
    """Return each category's probability from the answer alone, unpadded."""
    text = TEMPLATE.format(prompt=answer.example.prompt, answer=answer.text)
    ids = torch.tensor([tiny_tokenizer()(text).input_ids])
    with torch.no_grad():
        return dict(zip(CATEGORIES, classifier()(ids).logits[0].sigmoid().tolist(), strict=True))


def test_any_category_over_its_threshold_flags(saved: Path) -> None:
    thresholds = {"violence": 0.9, "theft": 0.1}
    options = {"model": str(saved), "thresholds": thresholds, "batch_size": 2, "device": "cpu"}
    judge = build_judge("hub-moderation", options)
    for answer, verdicts in zip(HARMFUL, judge.judge(HARMFUL), strict=True):
        probs = probabilities(answer)
        flagged = [c for c in CATEGORIES if probs[c] > thresholds.get(c, 0.5)]
        verdict = verdicts["unsafe"]
        assert verdict.score is not None
        assert (verdict.score >= 0.5) is bool(flagged)
        assert verdict.label == (f"flagged: {'; '.join(flagged)}" if flagged else "safe")
        assert verdict.raw == "; ".join(f"{c} {probs[c]:.3f}" for c in CATEGORIES)
    assert judge.judge(QUESTIONS[:1]) == [{}]


def test_long_answers_are_cut_and_that_is_said(saved: Path) -> None:
    judge = build_judge("hub-moderation", {"model": str(saved), "max_length": 16, "device": "cpu"})
    assert "cut to 16 of" in judge.judge(HARMFUL[:1])[0]["unsafe"].raw


def test_moderation_models_and_options_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    network, tokenizer = classifier(), tiny_tokenizer()
    with pytest.raises(ConfigError, match="unknown category 'arson'"):
        ModerationJudge(network, tokenizer, name="m", thresholds={"arson": 0.5})
    with pytest.raises(ConfigError, match=r"threshold of 'violence' is 1\.0"):
        ModerationJudge(network, tokenizer, name="m", threshold=1.0)
    with pytest.raises(ConfigError, match=r"needs \{prompt\} and \{answer\}"):
        ModerationJudge(network, tokenizer, name="m", template="{answer}")
    tiny_llama(layers=2).save_pretrained(tmp_path / "causal")
    tiny_tokenizer().save_pretrained(tmp_path / "causal")
    with pytest.raises(ModelMismatchError, match=r"has no weights for score\.weight"):
        build_judge("hub-moderation", {"model": str(tmp_path / "causal"), "device": "cpu"})
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_judge("hub-moderation", {"model": str(tmp_path / "nowhere"), "device": "cpu"})


@pytest.mark.parametrize(("judgement", "word"), [("truthful", "True"), ("informative", "Helpful")])
def test_the_score_is_the_share_of_yes(judgement: Any, word: str) -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    judge = YesNoJudge(model, tokenizer, judgement=judgement, name="j", batch_size=2, min_mass=0.0)
    for answer, verdicts in zip(QUESTIONS, judge.judge(QUESTIONS), strict=True):
        prompt = f"Q: {answer.example.prompt}\nA: {answer.text}\n{word}: "
        with torch.no_grad():
            probs = model(torch.tensor([tokenizer(prompt).input_ids])).logits[0, -1].double().softmax(-1)
        yes, no = (float(probs[tokenizer(letter).input_ids[0]]) for letter in "yn")
        assert verdicts[judgement].score == pytest.approx(yes / (yes + no), abs=1e-5)
    assert judge.judge(HARMFUL[:1]) == [{}]


def test_a_model_that_says_neither_is_unscored(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    options = {"model": str(tmp_path), "judgement": "truthful", "min_mass": 0.9, "device": "cpu"}
    judged = build_judge("hub-yes-no", options).judge(QUESTIONS)
    assert {v["truthful"].label for v in judged} == {"unscored: neither yes nor no"}
    assert {v["truthful"].score for v in judged} == {None}


def test_what_the_model_raises_is_unscored() -> None:
    class Broken:
        device = "cpu"

        def __call__(self, **_: object) -> object:
            raise RuntimeError("out of memory")

    judge = YesNoJudge(Broken(), tiny_tokenizer(), judgement="truthful", name="j")
    verdict = judge.judge(QUESTIONS[:1])[0]["truthful"]
    assert (verdict.score, verdict.raw) == (None, "RuntimeError: out of memory")
    with pytest.raises(ConfigError, match="option 'judgement': got 'safe'"):
        build_judge("hub-yes-no", {"model": "m", "judgement": "safe"})
