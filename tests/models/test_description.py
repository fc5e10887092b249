"""What a base model is besides its weights, and what a manifest remembers of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, RepetitionPenaltyLogitsProcessor

from mocae.errors import ArtifactError, ConfigError, ModelMismatchError
from mocae.models import BaseDescription, LogitsSettings, describe, load_base
from mocae.prompts import CHAT, resolve_template
from odd_bases import HYBRID, ODD, OPENS_THOUGHT, PLAIN, write_odd
from tiny import EOS, tiny_llama, tiny_tokenizer


def _described(**chosen: object) -> BaseDescription:
    return describe(tiny_llama(layers=1), tiny_tokenizer(), **chosen)  # type: ignore[arg-type]


def test_it_is_recorded_and_taken_over(capsys: pytest.CaptureFixture[str]) -> None:
    now = _described()
    before = replace(now, end_tokens=(7, EOS), logits=LogitsSettings(repetition_penalty=1.2))
    assert now.as_recorded(now.record(), where="run", chat=True) == now
    assert capsys.readouterr().err == ""
    assert now.as_recorded(before.record(), where="run", chat=True) == before
    assert "run: end_tokens were (7, 257) when it ran" in " ".join(capsys.readouterr().err.split())


def test_another_way_to_read_prompts_is_refused() -> None:
    now = _described()
    other = replace(now, template="0" * 64)
    with pytest.raises(ModelMismatchError, match="run: the base model has another chat template than the run"):
        now.as_recorded(other.record(), where="run", chat=True)
    assert now.as_recorded(other.record(), where="run", chat=False) == other
    with pytest.raises(ModelMismatchError, match="another tokenizer"):
        now.as_recorded(replace(now, reading="0").record(), where="run", chat=False)
    with pytest.raises(ArtifactError, match=r"run: base.description.end_tokens.0: Input should be greater"):
        now.as_recorded(now.record() | {"end_tokens": [-1]}, where="run", chat=False)


def test_several_templates_need_a_choice(tmp_path: Path) -> None:
    folder = write_odd(ODD["several templates"], tmp_path)
    base = load_base(folder, dtype="fp32", device="cpu")  # a format without template can do with it
    with pytest.raises(ConfigError, match=r"chat templates 'short', 'thinking' and no default; set base.chat_template"):
        CHAT.format_prompt("Who?", injection=None, tokenizer=base.tokenizer)
    with pytest.raises(ConfigError, match=r"base.chat_template: unknown chat template 'shrt'"):
        load_base(folder, dtype="fp32", device="cpu", chat_template="shrt")


def test_options_are_those_the_template_reads() -> None:
    with pytest.raises(ConfigError, match=r"base.template_options: unknown variable of the chat template 'thinkin'"):
        _described(template_options={"thinkin": True})
    with pytest.raises(ConfigError, match=r"base.generation.end_tokens: unknown token '<end>'"):
        _described(generation={"end_tokens": ["<end>"]})


@pytest.mark.parametrize("template", [OPENS_THOUGHT, HYBRID])
def test_answers_are_trained_behind_a_closed_thought(template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    text = CHAT.format_prompt("Who?", injection=None, tokenizer=tokenizer)
    assert text.endswith("[assistant]<think>\n\n</think>\n\n")
    tokenizer.chat_template = resolve_template(tokenizer, options={"enable_thinking": True})
    assert (
        "</think>" not in CHAT.format_prompt("Who?", injection=None, tokenizer=tokenizer) or template == OPENS_THOUGHT
    )


def test_resolving_again_changes_nothing() -> None:
    tokenizer = tiny_tokenizer()
    for template in (PLAIN, OPENS_THOUGHT, HYBRID):
        tokenizer.chat_template = template
        tokenizer.chat_template = once = resolve_template(tokenizer)
        assert resolve_template(tokenizer) == once


def test_settings_act_as_the_librarys_do_and_are_exported(tmp_path: Path) -> None:
    settings = LogitsSettings(repetition_penalty=1.5, begin_suppress_tokens=(3,), min_new_tokens=1)
    logits, tokens = torch.linspace(-1, 1, 9), [1, 8, 8]
    found = settings.adjusted(logits, tokens, n_prompt=3, ends=[5])
    wanted = RepetitionPenaltyLogitsProcessor(1.5)(torch.tensor([tokens]), logits[None].clone())[0]
    wanted[[3, 5]] = -torch.inf
    assert torch.equal(found, wanted)
    odd = ODD["chosen penalty"]
    base = load_base(write_odd(odd, tmp_path), dtype="fp32", device="cpu", **odd.said)
    base.save_reading(tmp_path / "out", base.tokenizer.chat_template)
    written = GenerationConfig.from_pretrained(tmp_path / "out")
    assert written.repetition_penalty == 1.4
    assert written.eos_token_id == sorted(base.description.end_tokens)
