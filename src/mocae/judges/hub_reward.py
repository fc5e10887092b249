"""A reward model (a sequence classifier with one output): which of two answers is better, and the best of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mocae.errors import ConfigError, ModelMismatchError
from mocae.judges.base import Says, reference_of, with_correct
from mocae.judges.hub import HubJudge, JudgeModel, pad_right
from mocae.types import Answer, Verdict

__all__ = ["RewardJudge"]


class RewardJudge(HubJudge):
    """Judges "win" against the reference answer by the larger reward, and "correct" where the answer wins.

    The score is 1, 1/2 or 0 for a larger, equal or smaller reward than the reference's; `raw` holds both. Rewards of
    different prompts are not to be compared. A question and its answer are written by the tokenizer's chat template,
    as published reward models are trained; where it has none they are two segments of the classifier.

    Args:
        model: a loaded model, or folder or hub id of one: a sequence classifier with one output.
        revision: commit or tag on the hub.
        max_length: most tokens read; longer texts lose their end.
        batch_size: answers read at once.
        dtype: see `mocae.models.pick_dtype`.
        device: where to put it; None: an accelerator if there is one.

    Raises:
        ConfigError: the model cannot be loaded.
        ModelMismatchError: weights are missing, or it has more than one output.
    """

    judgements = ("win", "correct")

    def __init__(
        self,
        *,
        model: str | JudgeModel,
        revision: str | None = None,
        max_length: int = 4096,
        batch_size: int = 8,
        dtype: str = "auto",
        device: str | None = None,
    ) -> None:
        super().__init__(
            "reward", model, "classifier", batch_size=batch_size, revision=revision, dtype=dtype, device=device
        )
        outputs = self._model.config.num_labels
        if outputs != 1:
            raise ModelMismatchError(
                f"judge {self.name!r}: the model has {outputs} outputs; a reward model has one. Classifiers of harm "
                "are for 'hub-moderation'"
            )
        self._max_length = max_length

    @classmethod
    def says(cls, **_: Any) -> Says:
        """Return what it can say: both judgements of tasks that have a reference."""
        return lambda example: cls.judgements if example.probe == "task" and reference_of(Answer(example, "")) else ()

    def applies(self, answer: Answer) -> bool:
        """Return whether it answers a task that has a reference."""
        return answer.example.probe == "task" and reference_of(answer) is not None

    def read(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return "win" and "correct" for each answer."""
        own = [(a.example.prompt, a.text) for a in answers]
        other = [(a.example.prompt, reference_of(a) or "") for a in answers]
        rows = list(dict.fromkeys(own + other))  # an answer that is its reference is read once, and is a draw
        rewards = dict(zip(rows, self.rewards(rows), strict=True))
        return [with_correct(_comparison(rewards[a], rewards[b])) for a, b in zip(own, other, strict=True)]

    @torch.inference_mode()
    def rewards(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        """Return the reward of each (prompt, answer), read as one batch."""
        ids = [self._ids(prompt, answer)[: self._max_length] for prompt, answer in rows]
        logits = self._model(**pad_right(ids, self._model, self._tokenizer)).logits
        return [float(value) for value in logits.float()[:, 0]]

    def best(self, prompt: str, answers: Sequence[str]) -> int:
        """Return the position of the answer with the largest reward, the first of equal ones.

        Raises:
            ConfigError: no answers.
        """
        if not answers:
            raise ConfigError(f"judge {self.name!r}: no answers to choose from; give at least one")
        rewards: list[float] = []
        for start in range(0, len(answers), self._batch_size):
            rewards += self.rewards([(prompt, answer) for answer in answers[start : start + self._batch_size]])
        return max(range(len(rewards)), key=lambda i: -math.inf if math.isnan(rewards[i]) else rewards[i])

    def _ids(self, prompt: str, answer: str) -> list[int]:
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(prompt, answer).input_ids)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)


def _comparison(own: float, other: float) -> Verdict:
    raw = f"reward {own:.4f}, of the reference {other:.4f}"
    if math.isnan(own) or math.isnan(other):
        return Verdict(None, "unscored: no number", raw=raw)
    score = 1.0 if own > other else 0.5 if own == other else 0.0
    return Verdict(score, {1.0: "win", 0.5: "draw", 0.0: "loss"}[score], raw=raw)
