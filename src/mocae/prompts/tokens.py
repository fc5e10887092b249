"""Prompts and responses as tokens: a prompt never ends with an end token, a training row ends with exactly one."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from mocae.errors import ConfigError, TrainingError

__all__ = ["row_tokens", "without_end_token"]


def row_tokens(tokenizer: Any, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """Return the tokens of a formatted prompt, and those of a formatted response with one end token behind it.

    They are tokenised apart, as a prompt stands alone when it is answered.

    Raises:
        TrainingError: the tokenizer has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise TrainingError("the tokenizer has no end token, so no answer would learn to end; set eos_token")
    answer: list[int] = tokenizer(response, add_special_tokens=False)["input_ids"]
    while answer and answer[-1] == end:
        answer = answer[:-1]
    return tokenizer(prompt)["input_ids"], [*answer, end]


def without_end_token(tokenizer: Any, ends: Collection[int]) -> None:
    """Make a tokenizer leave off the end token it puts behind every text, in place; other tokenizers are left alone.

    Raises:
        ConfigError: it cannot be made to.
    """
    if not _adds_end(tokenizer, ends):
        return
    tokenizer.add_eos_token = False
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if _adds_end(tokenizer, ends) and backend is not None:
        from tokenizers import Tokenizer

        whole = json.loads(backend.to_str())
        texts = {tokenizer.convert_ids_to_tokens(end) for end in ends}
        for processor in _processors(whole["post_processor"]):
            for kind in ("single", "pair"):
                while processor.get(kind) and processor[kind][-1].get("SpecialToken", {}).get("id") in texts:
                    processor[kind].pop()
        backend.post_processor = Tokenizer.from_str(json.dumps(whole)).post_processor
    if _adds_end(tokenizer, ends):
        raise ConfigError(
            f"the tokenizer ({type(tokenizer).__name__}) ends every text with an end token, so prompts would be over "
            "before they are answered; set add_eos_token to false in its tokenizer_config.json"
        )


def _adds_end(tokenizer: Any, ends: Collection[int]) -> bool:
    whole, text = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    return whole[-1] in ends and whole[-len(text) :] != text


def _processors(processor: Any) -> list[dict[str, Any]]:
    """Return a post-processor of the tokenizers library and those it is made of."""
    if not isinstance(processor, dict):
        return []
    return [processor, *(one for part in processor.get("processors", []) for one in _processors(part))]
