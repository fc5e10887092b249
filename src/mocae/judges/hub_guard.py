"""A generative safety model in this process: greedy replies, or the log-probabilities of two labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mocae.errors import ConfigError
from mocae.judges.base import in_batches
from mocae.judges.endpoint import Asked, Messages
from mocae.judges.hub import next_log_probs, pad_left

__all__ = ["LocalGuard"]


class LocalGuard:
    """Replies to requests with a causal language model.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        max_tokens: most tokens of a reply.
        labels: two words; their log-probabilities as the first token are told, and nothing is generated.
        batch_size: requests read at once.

    Raises:
        ConfigError: a label is no token of the model.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, max_tokens: int, labels: tuple[str, str] | None, batch_size: int
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._max_tokens, self._batch_size = max_tokens, batch_size
        self._labels = {}
        for label in labels or ():
            self._labels[label] = tokenizer.convert_tokens_to_ids(label)
            if self._labels[label] in (None, tokenizer.unk_token_id):
                raise ConfigError(f"the label {label!r} is no token of this model; is it the model the guard names?")

    def ask(self, requests: Sequence[tuple[Messages, Mapping[str, Any]]]) -> list[Asked]:
        """Return the reply to each request, in order; what a batch raises is its requests' failure."""
        replies = in_batches(
            requests,
            lambda batch: self._batch([self._ids(messages, options) for messages, options in batch]),
            lambda error: Asked(None, f"{type(error).__name__}: {error}", failure="passing"),
            self._batch_size,
        )
        return [replace(reply, seconds=seconds) for reply, seconds in replies]

    def _ids(self, messages: Messages, options: Mapping[str, Any]) -> list[int]:
        if isinstance(messages, str):
            ids = list(self._tokenizer(messages).input_ids)
            return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids
        turns = [dict(message) for message in messages]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    @torch.inference_mode()
    def _batch(self, rows: Sequence[Sequence[int]]) -> list[Asked]:
        pad = self._tokenizer.pad_token_id or 0  # masked, so that any token will do
        batch = pad_left(rows, self._model, padding=pad)
        if self._labels:
            log_probs = next_log_probs(batch, self._model, list(self._labels.values()))
            first = [dict(zip(self._labels, row, strict=True)) for row in log_probs]
            return [Asked(str({name: round(p, 4) for name, p in row.items()}), first=row) for row in first]
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "pad_token_id": pad}
        out = self._model.generate(**batch, max_new_tokens=self._max_tokens, **greedy)
        ends = self._model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}
        return [self._reply(row, ends) for row in out[:, batch["input_ids"].shape[1] :].tolist()]

    def _reply(self, tokens: Sequence[int], ends: set[int]) -> Asked:
        length = next((i for i, token in enumerate(tokens) if token in ends), None)
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Asked(str(text), n_tokens=len(tokens), cut=length is None)
