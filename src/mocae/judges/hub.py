"""Judge models from the Hub or a folder: what all of them share, loading and reading in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from mocae.errors import ConfigError, ModelMismatchError
from mocae.judges.base import JudgeQuality, judge_batches
from mocae.models import pick_dtype, without_library_bars
from mocae.types import Answer, Verdict

__all__ = ["HubJudge", "JudgeModel", "load_judge_model", "next_log_probs", "pad_left", "pad_right", "with_end"]

_CLASSES = {"classifier": "AutoModelForSequenceClassification", "causal": "AutoModelForCausalLM"}


@dataclass(frozen=True, slots=True)
class JudgeModel:
    """A model in evaluation mode and its tokenizer; verdicts carry the name."""

    network: Any
    tokenizer: Any
    name: str


class HubJudge(ABC):
    """A judge that is a model of Hugging Face.

    Args:
        label: first part of its name.
        model: a loaded model, or folder or hub id of one.
        kind: a sequence classifier or a causal language model.
        batch_size: answers read at once.
        revision: commit or tag on the hub.
        dtype: see `mocae.models.pick_dtype`.
        device: where to put it; None: an accelerator if there is one.

    Raises:
        ConfigError: the model cannot be loaded.
        ModelMismatchError: weights are missing.
    """

    judgements: tuple[str, ...]
    quality: JudgeQuality | None = None

    def __init__(
        self,
        label: str,
        model: str | JudgeModel,
        kind: Literal["classifier", "causal"],
        *,
        batch_size: int,
        revision: str | None,
        dtype: str,
        device: str | None,
    ) -> None:
        if isinstance(model, str):
            model = load_judge_model(model, kind, revision=revision, dtype=dtype, device=device)
        self.name = f"{label}:{model.name}"
        self._model, self._tokenizer, self._batch_size = model.network, model.tokenizer, batch_size

    @abstractmethod
    def applies(self, answer: Answer) -> bool:
        """Return whether the judge is for an answer."""

    @abstractmethod
    def read(self, answers: Sequence[Answer]) -> Sequence[Mapping[str, Verdict]]:
        """Return the verdicts on a batch of answers, with score, label and raw text."""

    def judge(self, answers: Sequence[Answer]) -> list[dict[str, Verdict]]:
        """Return the verdicts on each answer the judge is for, {} for the others."""
        return judge_batches(
            answers,
            self.applies,
            self.read,
            judge=self.name,
            judgements=self.judgements,
            batch_size=self._batch_size,
        )


def load_judge_model(
    model: str,
    kind: Literal["classifier", "causal"],
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> JudgeModel:
    """Return a model in evaluation mode and its tokenizer. Weights are read from safetensors only.

    Args:
        model: folder or hub id.
        kind: a sequence classifier or a causal language model.
        revision: commit or tag on the hub.
        dtype: see `mocae.models.pick_dtype`.
        device: where to put it; None: an accelerator if there is one.

    Raises:
        ConfigError: it cannot be loaded; the message says how to convert `.bin` weights.
        ModelMismatchError: weights are missing.
    """
    import transformers

    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    auto = _CLASSES[kind]
    try:
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
        if kind == "causal" and any("ForConditionalGeneration" in name for name in config.architectures or ()):
            auto = "AutoModelForImageTextToText"  # reads images as well, Llama Guard 4 among them
        with without_library_bars():
            loaded: Any = getattr(transformers, auto).from_pretrained(
                model,
                revision=revision,
                dtype=pick_dtype(dtype, target),
                use_safetensors=True,
                output_loading_info=True,
            )
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"judge model {model!r} cannot be loaded: {' '.join(str(error).split())}. Accepted: a folder or hub id of "
            f"a {kind} model with safetensors weights. {_conversion(model, auto)}"
        ) from error
    network, info = loaded
    if info["missing_keys"]:
        raise ModelMismatchError(
            f"judge model {model!r} has no weights for {', '.join(sorted(info['missing_keys'])[:3])}; they would be "
            f"random and so would its verdicts. Use a trained {kind} model"
        )
    return JudgeModel(network.to(target).eval(), tokenizer, model.rstrip("/").rpartition("/")[2])


def _conversion(model: str, auto: str) -> str:
    """Return how to make safetensors of `.bin` weights, which are pickles and could run code; "" where they are not."""
    folder = Path(model).expanduser()
    if folder.is_dir() and not list(folder.glob("*.bin")):
        return ""
    new = f"{folder.name}-safetensors"
    return (
        'Weights in .bin files alone are converted once, from a source that you trust: python -c "from transformers '
        f"import {auto} as M, AutoTokenizer as T; M.from_pretrained('{model}', use_safetensors=False)"
        f".save_pretrained('{new}'); T.from_pretrained('{model}').save_pretrained('{new}')\"; then name {new}"
    )


def with_end(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Return token ids that end in the tokenizer's end token, once; as they are where it has none."""
    end = tokenizer.eos_token_id
    return [*ids] if end is None or (ids and ids[-1] == end) else [*ids, end]


def pad_right(rows: Sequence[Sequence[int]], model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """Return a batch of token ids for a sequence classifier, and tell the model which token is padding.

    Classifiers on causal models read the last token that is not padding. So a row never ends in the padding token,
    also where a tokenizer pads with its end token.
    """
    last = {row[-1] for row in rows}
    chosen = tokenizer.pad_token_id
    if chosen is None or chosen in last:
        chosen = next(i for i in count() if i not in last)
    model.config.pad_token_id = chosen
    width = max(map(len, rows))
    ids = [[*row] + [chosen] * (width - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }


def pad_left(rows: Sequence[Sequence[int]], model: Any, *, padding: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch of token ids for a causal language model, which goes on at the end of every row."""
    width = max(map(len, rows))
    ids = [[padding] * (width - len(row)) + [*row] for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {
        "input_ids": torch.tensor(ids, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }


def next_log_probs(batch: Mapping[str, torch.Tensor], model: Any, tokens: Sequence[int]) -> list[list[float]]:
    """Return the log-probabilities of some tokens as the next one, a list for each row of `pad_left`."""
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    logits = model(**batch, position_ids=positions, logits_to_keep=1).logits[:, -1]
    values: list[list[float]] = logits.double().log_softmax(-1)[:, list(tokens)].tolist()
    return values
