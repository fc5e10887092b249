"""A tokenizer as GGUF fields: byte-level BPE and SentencePiece-like BPE, told apart by the tokenizer's own parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mocae.errors import ModelMismatchError

__all__ = ["Vocabulary", "read_vocabulary"]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # gguf.TokenType

_SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": "qwen2",
}
"""Regular expressions that cut a text before BPE -> llama.cpp's name for them."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llama.cpp needs to cut a text into the same tokens.

    Attributes:
        model: "gpt2" (byte-level BPE) or "llama" (BPE with bytes as a last resort).
        pre: llama.cpp's name for how a text is cut before BPE.
        tokens: text of every id, as many as the model embeds.
        types: kind of every id, as in GGUF.
        scores: for "llama": the earlier a piece is merged, the higher; else None.
        merges: for "gpt2": pairs in the order of merging; else None.
        add_space_prefix: whether a space is put in front of a text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    add_space_prefix: bool


def read_vocabulary(tokenizer: Any, n_rows: int) -> Vocabulary:
    """Return the vocabulary of a fast tokenizer, filled up to the `n_rows` ids the model embeds.

    Raises:
        ModelMismatchError: the tokenizer is of a kind that is not supported.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _unsupported(f"{type(tokenizer).__name__} is no fast tokenizer (no tokenizer.json)")
    parts = json.loads(backend.to_str())
    model = parts["model"]
    if model["type"] != "BPE":
        raise _unsupported(f"its model is {model['type']!r}")
    tokens, types = _tokens(parts, n_rows)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    if model.get("byte_fallback"):
        for token, index in model["vocab"].items():
            if len(token) == 6 and token.startswith("<0x"):
                types[index] = _BYTE
        if model.get("unk_token") in model["vocab"]:
            types[model["vocab"][model["unk_token"]]] = _UNKNOWN
        return Vocabulary("llama", "default", tokens, types, _scores(model, tokens), None, _prefix(parts))
    return Vocabulary("gpt2", _pre(parts, bool(merges)), tokens, types, None, merges, False)


def _unsupported(reason: str) -> ModelMismatchError:
    return ModelMismatchError(
        f"this tokenizer cannot be written as GGUF: {reason}. Supported: byte-level BPE cut as GPT-2, Llama 3 or "
        "Qwen 2 do, and BPE with byte fallback (Llama 2, Mistral). Export with --to merged or peft, and use "
        "llama.cpp's own converters"
    )


def _tokens(parts: Mapping[str, Any], n_rows: int) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    types = [_UNUSED] * n_rows
    for token, index in parts["model"]["vocab"].items():
        tokens[index], types[index] = token, _NORMAL
    for added in parts["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    return tokens, types


def _pre(parts: Mapping[str, Any], has_merges: bool) -> str:
    """Return llama.cpp's name for the way a byte-level tokenizer cuts a text."""
    steps = parts["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    *before, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise _unsupported("it does not end with plain byte-level pieces")
    if not has_merges:
        return "gpt-2"  # every byte is a token, however the text is cut
    if not before and last.get("use_regex", True):
        return "gpt-2"
    if len(before) == 1 and before[0].get("type") == "Digits" and before[0].get("individual_digits"):
        return "smollm"
    pattern = before[0].get("pattern", {}).get("Regex", "") if len(before) == 1 else ""
    if pattern not in _SPLITS:
        raise _unsupported(f"it cuts texts in a way llama.cpp has no known name for ({pattern[:60]!r})")
    return _SPLITS[pattern]


def _scores(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Return scores under which merging by score is merging by rank; pieces that are never merged come last."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _prefix(parts: Mapping[str, Any]) -> bool:
    text = json.dumps([parts.get("normalizer"), parts.get("pre_tokenizer")])
    metaspace = '"Metaspace"' in text and '"prepend_scheme": "never"' not in text
    return '"Prepend"' in text or metaspace
