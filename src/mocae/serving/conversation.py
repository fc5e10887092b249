"""Conversations as the tokens a model reads, written in the format its experts were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mocae.errors import ConfigError, DataError
from mocae.prompts import ChatFormat, PromptFormat, chat_text

__all__ = ["Turn", "conversation_tokens"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str


def conversation_tokens(
    turns: Sequence[Turn], *, prompt_format: PromptFormat, tokenizer: Any, injection: str | None = None
) -> list[int]:
    """Return the tokens of a conversation up to where the model speaks.

    A single question becomes what `AlignedModel.reply` and training make of it. System messages take the place of the
    injected prompt. Formats other than a chat template know one question and one answer: earlier exchanges are written
    in the same way, one after the other, which the experts have not seen in training.

    Args:
        turns: messages in order; the last one is the user's.
        prompt_format: of the artifact.
        tokenizer: of the base model.
        injection: a system's own instruction, in front of what system messages say.

    Raises:
        DataError: no messages, an empty one (an answer may be empty), roles in an order that cannot be written, or a
            system message after the first question.
    """
    if not turns:
        raise DataError("messages is empty; give at least one message with role 'user'")
    if turns[-1].role != "user":
        raise DataError(f"the last message has role {turns[-1].role!r}; it must be the user's, for the model to answer")
    for i, turn in enumerate(turns):
        if not turn.text.strip() and turn.role != "assistant":
            raise DataError(f"messages[{i}] is empty; give it text")
    n_system = next(i for i, turn in enumerate(turns) if turn.role != "system")
    instructions = [*([injection] if injection else []), *(turn.text for turn in turns[:n_system])]
    system = "\n".join(instructions) or None
    talk = turns[n_system:]
    for i, turn in enumerate(talk):
        if turn.role != ("user", "assistant")[i % 2]:
            raise DataError(
                f"messages[{n_system + i}] has role {turn.role!r}; accepted: system messages first, then user and "
                "assistant in turn"
            )
    if isinstance(prompt_format, ChatFormat) and len(talk) > 1:
        return _templated(system, talk, tokenizer)
    tokens: list[int] = []
    for i in range(0, len(talk), 2):
        question = prompt_format.format_prompt(talk[i].text, injection=None if i else system, tokenizer=tokenizer)
        tokens += _encoded(tokenizer, f"\n{question}" if i else question, special=not i)
        if i + 1 < len(talk):
            tokens += _encoded(tokenizer, prompt_format.format_response(talk[i + 1].text), special=False)
    return tokens


def _templated(system: str | None, talk: Sequence[Turn], tokenizer: Any) -> list[int]:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": turn.role, "content": turn.text} for turn in talk]
    try:
        text = chat_text(tokenizer, messages)
    except ConfigError as error:
        raise DataError(f"the model's chat template cannot write these messages: {error}") from error
    return _encoded(tokenizer, text, special=True)


def _encoded(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    tokens: list[int] = tokenizer(text, add_special_tokens=special).input_ids
    return tokens
