from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from mocae.errors import ConfigError, ModelMismatchError
from mocae.judges import build_judge
from mocae.judges.hub import JudgeModel, with_end
from mocae.judges.hub_moderation import TEMPLATE, ModerationJudge
from mocae.judges.hub_reward import RewardJudge
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
    """Return each category's probability as the published predictor has it: the answer alone, the end token last."""
    ids = tiny_tokenizer()(TEMPLATE.format(prompt=answer.example.prompt, answer=answer.text)).input_ids
    network = classifier()
    with torch.no_grad():
        hidden = network.model(torch.tensor([[*ids, EOS]])).last_hidden_state[0, -1]
        return dict(zip(CATEGORIES, network.score(hidden).sigmoid().tolist(), strict=True))


def test_any_category_over_its_threshold_flags(saved: Path) -> None:
    thresholds = {"violence": 0.9, "theft": 0.1}
    options = {"model": str(saved), "thresholds": thresholds, "batch_size": 2, "device": "cpu", "dtype": "fp32"}
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


@pytest.mark.parametrize("pad", [None, "<eos>"], ids=["no-pad", "pads-with-end"])
def test_the_end_token_is_read_also_where_it_is_the_padding(pad: str | None) -> None:
    network, tokenizer = classifier(), tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token if pad else None
    judge = ModerationJudge(model=JudgeModel(network, tokenizer, "m"), batch_size=5)
    for answer, verdicts in zip(HARMFUL, judge.judge(HARMFUL), strict=True):
        assert verdicts["unsafe"].raw == "; ".join(f"{c} {p:.3f}" for c, p in probabilities(answer).items())
    without = ModerationJudge(model=JudgeModel(network, tokenizer, "m"), append_end=False).judge(HARMFUL[:1])[0][
        "unsafe"
    ]
    assert without.raw != judge.judge(HARMFUL[:1])[0]["unsafe"].raw


def test_a_tokenizer_that_appends_its_end_token_gets_it_once() -> None:
    assert with_end([5, EOS], tiny_tokenizer()) == [5, EOS] == with_end([5], tiny_tokenizer())


def test_bin_weights_are_refused_with_the_command_that_converts_them(saved: Path, tmp_path: Path) -> None:
    expected = build_judge("hub-moderation", {"model": str(saved), "device": "cpu", "dtype": "fp32"}).judge(HARMFUL)
    (saved / "model.safetensors").unlink()
    torch.save(classifier().state_dict(), saved / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        build_judge("hub-moderation", {"model": str(saved), "device": "cpu"})
    command = re.search(r'python -c "(.*)"; then name (.*)$', str(caught.value))
    assert command is not None
    new = tmp_path / "new" / command[2]
    exec(command[1].replace(f"'{command[2]}'", repr(str(new))), {})  # what the message says, into another folder
    found = build_judge("hub-moderation", {"model": str(new), "device": "cpu", "dtype": "fp32"}).judge(HARMFUL)
    assert [v["unsafe"].raw for v in found] == [v["unsafe"].raw for v in expected]


def reward_model() -> LlamaForSequenceClassification:
    config = classifier().config
    config.num_labels = 1
    torch.manual_seed(1)
    return LlamaForSequenceClassification(config).eval()


TASKS = [
    Answer(Example(f"Task {i}", "a", "task", facts={"reference": "the reference"}), text)
    for i, text in enumerate(["an answer", "the reference", "another, longer answer", "y"])
]


@pytest.mark.parametrize("chat", [True, False])
def test_a_reward_model_compares_with_the_reference_and_finds_the_best(chat: bool) -> None:
    network, tokenizer = reward_model(), tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" if chat else None

    def reward(prompt: str, answer: str) -> float:
        ids = (
            tokenizer(f"user: {prompt}\nassistant: {answer}\n", add_special_tokens=False).input_ids
            if chat
            else tokenizer(prompt, answer).input_ids
        )
        with torch.no_grad():
            return float(network.score(network.model(torch.tensor([ids])).last_hidden_state[0, -1]))

    judge = RewardJudge(model=JudgeModel(network, tokenizer, "r"), batch_size=3)
    for answer, verdicts in zip(TASKS, judge.judge(TASKS), strict=True):
        own, other = reward(answer.example.prompt, answer.text), reward(answer.example.prompt, "the reference")
        expected = 0.5 if answer.text == "the reference" else float(own > other)
        assert verdicts["win"].score == expected
        assert verdicts["correct"].score == float(expected == 1)
        assert verdicts["win"].raw == f"reward {own:.4f}, of the reference {other:.4f}"
    texts = [answer.text for answer in TASKS]
    assert judge.best("Task", texts) == max(range(4), key=lambda i: reward("Task", texts[i]))
    assert judge.judge(HARMFUL[:1]) == [{}]
    with pytest.raises(ConfigError, match="no answers to choose from"):
        judge.best("Task", [])


def test_a_classifier_with_several_outputs_is_no_reward_model(saved: Path) -> None:
    with pytest.raises(ModelMismatchError, match="has 3 outputs; a reward model has one"):
        build_judge("hub-reward", {"model": str(saved), "device": "cpu"})


def test_long_answers_are_cut_and_that_is_said(saved: Path) -> None:
    judge = build_judge("hub-moderation", {"model": str(saved), "max_length": 16, "device": "cpu"})
    assert "cut to 16 of" in judge.judge(HARMFUL[:1])[0]["unsafe"].raw


def test_moderation_models_and_options_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    network, tokenizer = classifier(), tiny_tokenizer()
    with pytest.raises(ConfigError, match="unknown category 'arson'"):
        ModerationJudge(model=JudgeModel(network, tokenizer, "m"), thresholds={"arson": 0.5})
    with pytest.raises(ConfigError, match=r"threshold of 'violence' is 1\.0"):
        ModerationJudge(model=JudgeModel(network, tokenizer, "m"), threshold=1.0)
    with pytest.raises(ConfigError, match=r"needs \{prompt\} and \{answer\}"):
        ModerationJudge(model=JudgeModel(network, tokenizer, "m"), template="{answer}")
    tiny_llama(layers=2).save_pretrained(tmp_path / "causal")
    tiny_tokenizer().save_pretrained(tmp_path / "causal")
    with pytest.raises(ModelMismatchError, match=r"has no weights for score\.weight"):
        build_judge("hub-moderation", {"model": str(tmp_path / "causal"), "device": "cpu"})
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_judge("hub-moderation", {"model": str(tmp_path / "nowhere"), "device": "cpu"})


@pytest.mark.parametrize(("judgement", "word"), [("truthful", "True"), ("informative", "Helpful")])
def test_the_score_is_the_share_of_yes(judgement: Any, word: str) -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    judge = YesNoJudge(model=JudgeModel(model, tokenizer, "j"), judgement=judgement, batch_size=2, min_mass=0.0)
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

    judge = YesNoJudge(model=JudgeModel(Broken(), tiny_tokenizer(), "j"), judgement="truthful")
    verdict = judge.judge(QUESTIONS[:1])[0]["truthful"]
    assert (verdict.score, verdict.raw) == (None, "RuntimeError: out of memory")
    with pytest.raises(ConfigError, match="option 'judgement': got 'safe'"):
        build_judge("hub-yes-no", {"model": "m", "judgement": "safe"})
