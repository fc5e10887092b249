"""How a prompt becomes the text a model reads: formats, the chat template, rows as tokens."""

from mocae.prompts.formats import ALPACA, CHAT, FORMATS, PLAIN, AlpacaFormat, ChatFormat, PlainFormat, PromptFormat
from mocae.prompts.templates import THOUGHTS, chat_text, resolve_template, turn_end
from mocae.prompts.tokens import row_tokens, without_end_token
from mocae.prompts.written import template_of

__all__ = [
    "ALPACA",
    "CHAT",
    "FORMATS",
    "PLAIN",
    "THOUGHTS",
    "AlpacaFormat",
    "ChatFormat",
    "PlainFormat",
    "PromptFormat",
    "chat_text",
    "resolve_template",
    "row_tokens",
    "template_of",
    "turn_end",
    "without_end_token",
]
