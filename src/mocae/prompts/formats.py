r"""How a prompt becomes the text a model reads, and how an answer is joined to it.

A format writes the prompt so that it ends where a token ends (never with a space), and the response so that it begins
with what belongs to its first token. Prompt and response are tokenised apart and joined as tokens, and an answer is
always cut from token positions: what was generated after the last token of the prompt. Nothing is escaped and no text
is searched for a marker, so a prompt that contains "\nA:" or "### Response:" is read by the model as it stands and
shifts nothing. A prompt may still imitate a turn of the conversation; keeping that out is up to whoever lets
strangers write prompts.

The texts are tokenised with special tokens switched on, as the tokenizer adds them to any text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mocae.errors import DataError
from mocae.prompts.templates import chat_text
from mocae.registry import Registry

__all__ = ["ALPACA", "CHAT", "FORMATS", "PLAIN", "AlpacaFormat", "ChatFormat", "PlainFormat", "PromptFormat"]


@runtime_checkable
class PromptFormat(Protocol):
    """How prompts and responses are written."""

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        """Return the text a model reads before it answers.

        Args:
            prompt: what the user asks.
            injection: text an axis puts in front; None or "": nothing.
            tokenizer: tokenizer of the model, for formats that need one.

        Raises:
            DataError: the prompt is empty, or cannot be written as UTF-8.
            ConfigError: the format needs a tokenizer it did not get.
        """

    def format_response(self, response: str) -> str:
        """Return the response as it follows the formatted prompt; "" for an empty response."""


@dataclass(frozen=True, slots=True)
class PlainFormat:
    r"""Question and answer, for base models.

    >>> PlainFormat().format_prompt("Who?", injection="Be kind.")
    'Be kind.\nQ: Who?\nA:'
    """

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        """Return "Q: ...", with the injection on a line before it, and "A:".

        Raises:
            DataError: the prompt is empty.
        """
        return f"{_line(injection)}Q: {_text(prompt)}\nA:"

    def format_response(self, response: str) -> str:
        """Return the response after one space, which most tokenizers keep in the first word's token."""
        response = response.lstrip()
        return f" {response}" if response else ""


@dataclass(frozen=True, slots=True)
class AlpacaFormat:
    """The Alpaca template; the injection stands in front of the instruction.

    Reference:
        Taori et al., *Stanford Alpaca*, 2023, the template without input.

    Deviation:
        An input is part of the prompt (`mocae.data.alpaca`), so the template for rows with input is not used.
    """

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        """Return the template, filled.

        Raises:
            DataError: the prompt is empty.
        """
        return (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            f"\n\n### Instruction:\n{_line(injection)}{_text(prompt)}\n\n### Response:\n"
        )

    def format_response(self, response: str) -> str:
        """Return the response without space before it: the template ends with a line end."""
        return response.lstrip()


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The tokenizer's own chat template, resolved (`resolve_template`); the injection is the system message."""

    def format_prompt(self, prompt: str, *, injection: str | None, tokenizer: Any = None) -> str:
        """Return the conversation up to where the model speaks, see `chat_text`.

        Raises:
            DataError: the prompt is empty.
            ConfigError: no tokenizer, one without chat template, or a template that cannot write these messages.
        """
        system = [{"role": "system", "content": injection}] if injection else []
        return chat_text(tokenizer, [*system, {"role": "user", "content": _text(prompt)}])

    def format_response(self, response: str) -> str:
        """Return the response without space before it: the template ends where the model speaks."""
        return response.lstrip()


def _line(injection: str | None) -> str:
    return f"{injection}\n" if injection else ""


def _text(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise DataError(f"got a prompt of type {type(prompt).__name__}; expected text, one prompt at a time")
    if not prompt.strip():
        raise DataError(f"got an empty prompt, {prompt!r}; expected text to answer")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # a shell hands over bytes that are no UTF-8 in this way
        raise DataError(
            f"the prompt has {prompt[error.start]!r} at character {error.start + 1}, which is half of a character; "
            "expected text that can be written as UTF-8"
        ) from error
    return prompt


PLAIN, ALPACA, CHAT = PlainFormat(), AlpacaFormat(), ChatFormat()

FORMATS: Registry[PromptFormat] = Registry(
    "prompt format",
    entry_point_group="mocae.formats",
    builtin={
        "plain": ("mocae.prompts:PLAIN", "Q: ... A: ..., for base models"),
        "alpaca": ("mocae.prompts:ALPACA", "the Alpaca template, ### Instruction and ### Response"),
        "chat": ("mocae.prompts:CHAT", "the tokenizer's chat template"),
    },
)
