"""Settings of a base model that change which token is likeliest, applied to each answer as if it stood alone.

Hugging Face's processors see the padding of a batch as text: with a pad token that ends answers, a repetition penalty
keeps the shorter prompts of a batch from ending. So they are called here row by row, without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

__all__ = ["EachRow", "LogitsSettings"]

_Token = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class LogitsSettings:
    """What acts in every answer, greedy ones too; fields are those of Hugging Face's `GenerationConfig`."""

    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = 0
    bad_words_ids: tuple[tuple[_Token, ...], ...] = ()
    suppress_tokens: tuple[_Token, ...] = ()
    begin_suppress_tokens: tuple[_Token, ...] = ()
    min_new_tokens: Annotated[int, Field(ge=0)] = 0

    def __bool__(self) -> bool:
        return self != LogitsSettings()

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that do something, as `GenerationConfig` takes them."""
        plain = asdict(LogitsSettings())
        return {
            name: [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != plain[name]
        }

    def but(self, given: Mapping[str, Any]) -> LogitsSettings:
        """Return these settings with those of `given` in their place; None is the neutral value."""
        plain = asdict(LogitsSettings())
        taken = {name: given[name] for name in plain if name in given}
        return replace(self, **{k: plain[k] if v is None else _tuples(v) for k, v in taken.items()})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the settings."""
        return tuple(field.name for field in fields(cls))

    def adjusted(self, logits: Tensor, tokens: Sequence[int], *, n_prompt: int, ends: Sequence[int]) -> Tensor:
        """Return the (V,) logits of the token after `tokens`, prompt and answer so far.

        Args:
            logits: (V,), not changed.
            tokens: without padding.
            n_prompt: how many of them are the prompt.
            ends: tokens that end an answer.
        """
        n_new = len(tokens) - n_prompt
        ids = torch.tensor([list(tokens)], device=logits.device)
        scores: Tensor = _processors(self, tuple(ends))(ids, logits[None].clone())[0]  # type: ignore[arg-type]
        barred = [*(ends if n_new < self.min_new_tokens else ()), *(self.begin_suppress_tokens if n_new == 0 else ())]
        if barred:
            scores[barred] = -torch.inf
        return scores


class EachRow(LogitsProcessor):
    """The settings for `generate`, whose rows are padded on the left.

    Args:
        settings: what acts.
        mask: (B, T) of the prompts.
        ends: tokens that end an answer.
    """

    def __init__(self, settings: LogitsSettings, mask: Tensor, ends: Sequence[int]) -> None:
        self._settings, self._ends, self._width = settings, ends, mask.shape[1]
        self._padding = (mask == 0).sum(1).tolist()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (B, V) of the next tokens; several rows of one prompt stand next to each other."""
        copies = len(scores) // len(self._padding)
        padding = [n for n in self._padding for _ in range(copies)]
        rows = zip(scores, input_ids.tolist(), padding, strict=True)
        return torch.stack(
            [
                self._settings.adjusted(row, tokens[n:], n_prompt=self._width - n, ends=self._ends)
                for row, tokens, n in rows
            ]
        )


@lru_cache(maxsize=16)
def _processors(settings: LogitsSettings, ends: tuple[int, ...]) -> LogitsProcessorList:
    made: list[Any] = []
    if settings.repetition_penalty != 1.0:
        made.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        made.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        made.append(NoBadWordsLogitsProcessor([list(word) for word in settings.bad_words_ids], list(ends)))
    if settings.suppress_tokens:
        made.append(SuppressTokensLogitsProcessor(list(settings.suppress_tokens)))
    return LogitsProcessorList(made)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
