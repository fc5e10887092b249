"""A prompt format as a chat template, for servers that know nothing but the exported file."""

from __future__ import annotations

import re
from typing import Any

from mocae.prompts.formats import ChatFormat, PromptFormat
from mocae.prompts.templates import chat_text, resolve_template

__all__ = ["template_of"]

_SYSTEM, _USER, _ANSWER = "Qsystem", "Quser", "Qanswer"
_VALUES = {_SYSTEM: "ns.system", _USER: "message['content']", _ANSWER: "message['content'].lstrip()"}
_TEMPLATE = (
    "{{% set ns = namespace(system='', started=false) %}}"
    "{{% for message in messages %}}"
    "{{% if message['role'] == 'system' %}}"
    "{{% set ns.system = ns.system + ('\\n' if ns.system else '') + message['content'] %}}"
    "{{% elif message['role'] == 'user' %}}"
    "{{% if ns.started %}}{{{{ '\\n' }}}}{question}{{% elif ns.system %}}{instructed}"
    "{{% else %}}{question}{{% endif %}}"
    "{{% set ns.started = true %}}"
    "{{% elif message['content'] %}}{answer}{{% endif %}}"
    "{{% endfor %}}"
)


def template_of(prompt_format: PromptFormat, tokenizer: Any) -> str | None:
    """Return the Jinja text that writes messages as the format does; None for a format that no such text can follow.

    Several exchanges are written one after the other, system messages in front of the first, as `mocae serve` does.

    Args:
        prompt_format: one that only puts text around what it is given can be followed.
        tokenizer: of the model; `ChatFormat` has its chat template, resolved.
    """
    if isinstance(prompt_format, ChatFormat):
        return resolve_template(tokenizer)
    question = prompt_format.format_prompt(_USER, injection=None, tokenizer=tokenizer)
    instructed = prompt_format.format_prompt(_USER, injection=_SYSTEM, tokenizer=tokenizer)
    answer = prompt_format.format_response(_ANSWER)
    if not (_USER in question and _USER in instructed and _ANSWER in answer):
        return None
    parts = {"question": question, "instructed": instructed, "answer": answer}
    text = _TEMPLATE.format(**{name: _jinja(part) for name, part in parts.items()})
    resolved = resolve_template(tokenizer, text=text)
    other = "Two lines,\n {{ braces }} and 'quotes' "
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": other}]
    wanted = prompt_format.format_prompt(other, injection="Be kind.", tokenizer=tokenizer)
    return resolved if chat_text(tokenizer, messages, template=resolved) == wanted else None


def _jinja(text: str) -> str:
    """Return a text with marks for values as Jinja that writes it with the values."""
    pieces = re.split(f"({'|'.join(_VALUES)})", text)
    return "".join(f"{{{{ {_VALUES.get(piece, repr(piece))} }}}}" for piece in pieces if piece)
