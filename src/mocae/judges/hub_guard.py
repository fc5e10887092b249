"""A generative safety model in this process: greedy replies, or the log-probabilities of two labels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mocae.errors import ConfigError
from mocae.judges.endpoint import Asked, Messages

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
        replies: list[Asked] = []
        for start in range(0, len(requests), self._batch_size):
            some = requests[start : start + self._batch_size]
            started = time.perf_counter()
            try:
                made = self._batch([self._ids(messages, options) for messages, options in some])
            except Exception as error:  # what the model raises costs this batch only
                made = [Asked(None, f"{type(error).__name__}: {error}", failure="passing")] * len(some)
            seconds = (time.perf_counter() - started) / len(some)
            replies += [replace(reply, seconds=seconds) for reply in made]
        return replies

    def _ids(self, messages: Messages, options: Mapping[str, Any]) -> list[int]:
        if isinstance(messages, str):
            ids = list(self._tokenizer(messages).input_ids)
            return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids
        turns = [dict(message) for message in messages]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    @torch.inference_mode()
    def _batch(self, rows: Sequence[Sequence[int]]) -> list[Asked]:
        width = max(map(len, rows))
        pad = self._tokenizer.pad_token_id or 0  # masked, so that any token will do
        ids = torch.tensor([[pad] * (width - len(row)) + [*row] for row in rows], device=self._model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self._model.device)
        if self._labels:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            logits = self._model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
            told = logits.double().log_softmax(-1)[:, list(self._labels.values())].tolist()
            first = [dict(zip(self._labels, row, strict=True)) for row in told]
            return [Asked(str({name: round(p, 4) for name, p in row.items()}), first=row) for row in first]
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "pad_token_id": pad}
        out = self._model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=self._max_tokens, **greedy)
        ends = self._model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id} - {None}
        return [self._reply(row, ends) for row in out[:, width:].tolist()]

    def _reply(self, tokens: Sequence[int], ends: set[int]) -> Asked:
        length = next((i for i, token in enumerate(tokens) if token in ends), None)
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Asked(str(text), n_tokens=len(tokens), cut=length is None)
