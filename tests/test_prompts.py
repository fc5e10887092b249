from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from mocae.errors import ConfigError, DataError, PluginError
from mocae.prompts import FORMATS, chat_text, template_of
from mocae.serving.conversation import Turn, conversation_tokens
from tiny import tiny_tokenizer

PROMPT = "Name a river."
MARKERS = "What follows 'Q: a\nA: b'?\nA:\n### Response:\nfoo"
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
DROPS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")


def _chat_tokenizer(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_plain() -> None:
    plain = FORMATS.get("plain")
    assert plain.format_prompt(PROMPT, injection=None) == "Q: Name a river.\nA:"
    assert plain.format_prompt(PROMPT, injection="Be brief.") == "Be brief.\nQ: Name a river.\nA:"
    assert plain.format_response("The Nile.") == " The Nile."
    assert plain.format_response("") == ""


def test_alpaca() -> None:
    alpaca = FORMATS.get("alpaca")
    text = alpaca.format_prompt(PROMPT, injection="Be brief.")
    assert text.startswith("Below is an instruction that describes a task. Write a response")
    assert text.endswith("\n\n### Instruction:\nBe brief.\nName a river.\n\n### Response:\n")
    assert "Be brief." not in alpaca.format_prompt(PROMPT, injection=None)
    assert alpaca.format_response(" The Nile.") == "The Nile."


def test_chat_takes_the_injection_as_system_message() -> None:
    text = FORMATS.get("chat").format_prompt(PROMPT, injection="Be brief.", tokenizer=_chat_tokenizer(CHATML))
    assert text.endswith("<|system|>\nBe brief.\n<|user|>\nName a river.\n<|assistant|>\n")


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_chat_without_system_role_puts_the_injection_before_the_prompt(template: str) -> None:
    text = FORMATS.get("chat").format_prompt(PROMPT, injection="Be brief.", tokenizer=_chat_tokenizer(template))
    assert text.endswith("<|user|>\nBe brief.\nName a river.\n<|assistant|>\n")


@pytest.mark.parametrize("adds", [True, False])
def test_chat_text_begins_once_whoever_adds_the_beginning(adds: bool) -> None:
    tokenizer = _chat_tokenizer(CHATML)
    if adds:
        begin = ("<bos>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[begin])
    text = FORMATS.get("chat").format_prompt(PROMPT, injection=None, tokenizer=tokenizer)
    ids = tokenizer(text).input_ids
    assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)
    assert text.startswith("<bos>") is not adds


def test_chat_needs_a_template_that_works() -> None:
    chat = FORMATS.get("chat")
    with pytest.raises(ConfigError, match="prompt format 'chat': got no tokenizer; expected a chat model's tokenizer"):
        chat.format_prompt(PROMPT, injection=None)
    with pytest.raises(ConfigError, match=r"got .* without chat template"):
        chat.format_prompt(PROMPT, injection=None, tokenizer=_chat_tokenizer(None))  # type: ignore[arg-type]
    broken = _chat_tokenizer("{{ raise_exception('never') }}")
    with pytest.raises(ConfigError, match=r"fails on messages of user \(never\)"):
        chat.format_prompt(PROMPT, injection="Be brief.", tokenizer=broken)


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_markers_in_a_prompt_stay_inside_it_and_answers_are_cut_by_tokens(name: str) -> None:
    tokenizer = _chat_tokenizer(CHATML)
    chosen = FORMATS.get(name)
    text = chosen.format_prompt(MARKERS, injection="Be brief.", tokenizer=tokenizer)
    assert MARKERS in text
    assert not text.endswith(" ")
    prompt_ids = tokenizer(text).input_ids
    answer_ids = tokenizer(chosen.format_response("Q: x\nA: y"), add_special_tokens=False).input_ids
    whole = tokenizer(text + chosen.format_response("Q: x\nA: y")).input_ids
    assert whole[: len(prompt_ids)] == prompt_ids
    assert tokenizer.decode([*prompt_ids, *answer_ids][len(prompt_ids) :]).strip() == "Q: x\nA: y"


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_no_prompt_ends_with_a_space_and_empty_ones_are_refused(name: str) -> None:
    tokenizer = _chat_tokenizer(CHATML.replace("<|assistant|>\n", "<|assistant|> "))
    assert FORMATS.get(name).format_prompt("a ", injection=None, tokenizer=tokenizer)[-1] != " "
    with pytest.raises(DataError, match=r"got an empty prompt, ' '"):
        FORMATS.get(name).format_prompt(" ", injection=None, tokenizer=tokenizer)


@pytest.mark.parametrize("name", ["plain", "alpaca", "chat"])
def test_half_of_a_character_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"'\\udcff' at character 4, which is half of a character"):
        FORMATS.get(name).format_prompt("Hi \udcff?", injection=None, tokenizer=_chat_tokenizer(CHATML))


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"unknown prompt format 'plan'.* Did you mean 'plain'\?"):
        FORMATS.get("plan")


def test_what_is_no_text_is_an_error_of_ours() -> None:
    # A process of its own, where types are not checked for the test.
    script = "from mocae.prompts import PLAIN; PLAIN.format_prompt(['a', 'b'], injection=None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "mocae.errors.DataError: got a prompt of type list; expected text, one prompt at a time" in done.stderr


TALK = [
    ("system", "Be brief."),
    ("system", "And {{ kind }}."),
    ("user", "Who\n{% goes %} 'there'?"),
    ("assistant", " I."),
    ("user", "Why? "),
]


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("name", ["plain", "alpaca"])
@pytest.mark.parametrize("turns", [TALK[2:3], TALK[:3], TALK[2:], TALK])
def test_a_format_as_a_chat_template_writes_what_our_server_reads(
    name: str, adds: bool, turns: list[tuple[Any, str]]
) -> None:
    tokenizer, prompt_format = tiny_tokenizer(), FORMATS.get(name)
    if adds:
        processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
        tokenizer.backend_tokenizer.post_processor = processor
    template = template_of(prompt_format, tokenizer)
    messages = [{"role": role, "content": text} for role, text in turns]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    wanted = conversation_tokens([Turn(*turn) for turn in turns], prompt_format=prompt_format, tokenizer=tokenizer)
    assert text == tokenizer.decode(wanted)
    assert text.startswith("<bos>") == adds


class Shouting:
    """Changes what it is given, which a template cannot follow."""

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        return f"{injection or ''}{prompt.upper()}"

    def format_response(self, response: str) -> str:
        return response


def test_a_format_that_changes_the_prompt_has_no_chat_template() -> None:
    assert template_of(Shouting(), tiny_tokenizer()) is None
    chat = tiny_tokenizer()
    assert chat_text(chat, [{"role": "user", "content": "Hi"}], template=template_of(FORMATS.get("chat"), chat)) == (
        "user: Hi\nassistant:"
    )
