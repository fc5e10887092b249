r"""The chat template of a tokenizer, resolved: one Jinja text that means the same wherever it is rendered.

What a recipe chooses and what a template lacks is written *into* the text, so that training, answers, servers and
exports cannot differ, and neither can a server that reads nothing but the exported file:

- options (`enable_thinking`) are set at its beginning. Thinking is off and the date fixed where nothing says otherwise.
- a template that refuses the system role or drops it gets the system message at the start of the first user's;
- a prompt that would end in an open thought gets the thought closed, unless thinking is chosen;
- a beginning-of-text token that the tokenizer puts before any text, but the template does not write, is written.

Resolving what was resolved changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mocae.errors import ConfigError, unknown_name

__all__ = ["THOUGHTS", "chat_text", "resolve_template", "turn_end"]

THOUGHTS = re.compile(r"(?:<((?:\w+:)?(?:think|thinking|thought|reasoning))>|\[(THINK)\])(\s*)\Z")
"""A prompt's end that opens a thought."""

_DEFAULTS: dict[str, Any] = {"enable_thinking": False, "thinking": False, "date_string": "26 Jul 2024"}
"""Set where a template reads them: experts learn answers, not thoughts, and prompts are the same every day."""
_MARK = "{# resolved by mocae #}\n"
_THINKING = ("enable_thinking", "thinking")
_FOLD = (  # the line end after a block is not written
    "{% if messages|length > 1 and messages[0]['role'] == 'system' %}{% set messages = [{'role': 'user', 'content': "
    "messages[0]['content'] + '\\n' + messages[1]['content']}] + messages[2:] %}{% endif %}\n"
)
_GIVEN = frozenset({"messages", "add_generation_prompt", "raise_exception", "strftime_now", "range", "namespace"})
"""What a template is always given; the special tokens are too."""
_SYSTEM, _USER, _ANSWER = "Qsystem", "Quser", "Qanswer"
_Messages = Sequence[Mapping[str, str]]
_resolved: dict[tuple[Any, ...], str] = {}


def chat_text(tokenizer: Any, messages: _Messages, *, answer_next: bool = True, template: str | None = None) -> str:
    """Return a conversation as the tokenizer's resolved chat template writes it.

    A beginning-of-text token is left out where the tokenizer adds it, so that it is never there twice, and so are
    spaces at the end.

    Args:
        tokenizer: of the model.
        messages: with `role` and `content`.
        answer_next: end where the model speaks.
        template: resolved, in place of the tokenizer's.

    Raises:
        ConfigError: no chat template, several of which none is chosen, or one that cannot write these messages.
    """
    text = _render(tokenizer, template or resolve_template(tokenizer), messages, answer_next=answer_next)
    return (text.removeprefix(tokenizer.bos_token) if _adds_bos(tokenizer) else text).rstrip(" ")


def resolve_template(
    tokenizer: Any, *, name: str | None = None, options: Mapping[str, Any] | None = None, text: str | None = None
) -> str:
    """Return the tokenizer's chat template with all that is chosen written into it.

    Args:
        tokenizer: its templates.
        name: of one of several templates; None: "default".
        options: values of the template's variables.
        text: a template in place of the tokenizer's.

    Raises:
        ConfigError: no template, none of this name, an option the template does not read, or a template that cannot
            write a user's message.
    """
    text = _chosen(tokenizer, name) if text is None else text
    tokens = tuple(sorted((key, str(value)) for key, value in tokenizer.special_tokens_map.items()))
    key = (text, repr(sorted((options or {}).items())), tokens, _adds_bos(tokenizer))
    if key not in _resolved:
        _resolved[key] = _resolve(tokenizer, text, dict(options or {}))
    return _resolved[key]


def turn_end(tokenizer: Any, template: str) -> int | None:
    """Return the special token with which a template ends an answer; None where it has none, or no single one."""
    try:
        messages = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        text = _render(tokenizer, template, messages, answer_next=False)
    except ConfigError:  # some templates write prompts alone
        return None
    ending = text.rpartition(_ANSWER)[2].strip()
    token = tokenizer.convert_tokens_to_ids(ending) if ending in tokenizer.get_added_vocab() else None
    return token if token is not None and token != tokenizer.bos_token_id else None


def _chosen(tokenizer: Any, name: str | None) -> str:
    templates = getattr(tokenizer, "chat_template", None)
    if not templates:
        kind = "no tokenizer" if tokenizer is None else f"{type(tokenizer).__name__} without chat template"
        raise ConfigError(f"prompt format 'chat': got {kind}; expected a chat model's tokenizer, or use 'plain'")
    if isinstance(templates, str):
        templates = {"default": templates}
    if name is None and "default" not in templates:
        names = ", ".join(map(repr, sorted(templates)))
        raise ConfigError(
            f"prompt format 'chat': the tokenizer has chat templates {names} and no default; set base.chat_template to "
            "one of them"
        )
    if (name or "default") not in templates:
        raise ConfigError(f"base.chat_template: {unknown_name('chat template', str(name), sorted(templates))}")
    return str(templates[name or "default"])


def _resolve(tokenizer: Any, text: str, options: dict[str, Any]) -> str:
    if text.startswith(_MARK) and not options:
        return text
    read = _variables(text) - _GIVEN - set(tokenizer.special_tokens_map)
    chosen = {key: value for key, value in _DEFAULTS.items() if key in read} | options
    setting = "".join(f"{{% set {key} = {value!r} %}}" for key, value in sorted(chosen.items()) if key in read)
    made = f"{setting}\n" if setting else ""
    made += text.removesuffix("\n")  # Jinja drops a line end at the end of a template
    messages = [{"role": "user", "content": _USER}]
    if _USER not in _render(tokenizer, made, messages):
        raise ConfigError(
            "prompt format 'chat': the chat template does not write the user's message; use 'plain' or 'alpaca'"
        )
    if _loses_system(tokenizer, made):
        made = _FOLD + made
    prompt = _render(tokenizer, made, messages)
    thought = THOUGHTS.search(prompt)
    unknown = [key for key in options if key not in read and not (thought and key in _THINKING)]
    if unknown:
        raise ConfigError(f"base.template_options: {unknown_name('variable of the chat template', unknown[0], read)}")
    if thought and not any(chosen.get(key) for key in _THINKING):
        tag, bracket, space = thought.groups()
        close = ("\n" if "\n" in space else "\n\n") + (f"</{tag}>" if tag else f"[/{bracket}]") + "\n\n"
        made += f"{{% if add_generation_prompt %}}{{{{ {close!r} }}}}{{% endif %}}"
    if _adds_bos(tokenizer) and not prompt.startswith(tokenizer.bos_token):
        made = "{{ bos_token }}{# #}\n" + made
    return _MARK + made


def _loses_system(tokenizer: Any, text: str) -> bool:
    """Return whether a system message is refused or dropped, in the first turn or in the second."""
    opening = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    more = [{"role": "assistant", "content": _ANSWER}, {"role": "user", "content": "Qmore"}]
    try:
        return not all(_SYSTEM in _render(tokenizer, text, messages) for messages in (opening, opening + more))
    except ConfigError:
        return True


def _render(tokenizer: Any, template: str, messages: _Messages, *, answer_next: bool = True) -> str:
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=answer_next
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(
            f"prompt format 'chat': the chat template fails on messages of {_roles(messages)} ({error}); "
            "use 'plain' or 'alpaca'"
        ) from error
    return text


def _roles(messages: _Messages) -> str:
    return ", ".join(message["role"] for message in messages)


def _variables(text: str) -> set[str]:
    """Return the names a template reads and does not set itself."""
    from jinja2 import meta
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return set(meta.find_undeclared_variables(_compile_jinja_template(text).environment.parse(text)))
    except TemplateError as error:
        raise ConfigError(f"prompt format 'chat': the chat template is no Jinja template ({error})") from error


def _adds_bos(tokenizer: Any) -> bool:
    return bool(tokenizer.bos_token) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
