"""Judge models from the Hub or a folder: loaded one way, read in batches; what one batch raises costs only itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch

from mocae.errors import ConfigError, ModelMismatchError
from mocae.judges.base import unscored
from mocae.models import pick_dtype, without_library_bars
from mocae.types import Answer, Verdict

__all__ = ["in_batches", "load_judge_model", "pad_right", "short_name", "with_end"]

_CLASSES = {"classifier": "AutoModelForSequenceClassification", "causal": "AutoModelForCausalLM"}


def load_judge_model(
    model: str,
    kind: Literal["classifier", "causal"],
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> tuple[Any, Any]:
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
    return network.to(target).eval(), tokenizer


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


def short_name(model: str) -> str:
    """Return the last part of a folder or hub id."""
    return model.rstrip("/").rpartition("/")[2]


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


def in_batches(
    answers: Sequence[Answer],
    chosen: Sequence[int],
    read: Callable[[Sequence[Answer]], Sequence[Mapping[str, Verdict]]],
    *,
    judge: str,
    judgements: Sequence[str],
    batch_size: int,
) -> list[dict[str, Verdict]]:
    """Return the verdicts on the chosen answers, {} for the others; what `read` raises leaves its batch unscored."""
    judged: list[dict[str, Verdict]] = [{} for _ in answers]
    for start in range(0, len(chosen), batch_size):
        some = chosen[start : start + batch_size]
        started = time.perf_counter()
        try:
            rows = read([answers[i] for i in some])
        except Exception as error:  # what the model raises costs this batch only
            rows = [dict.fromkeys(judgements, unscored(error, judge=judge))] * len(some)
        seconds = (time.perf_counter() - started) / len(some)
        for i, verdicts in zip(some, rows, strict=True):
            judged[i] = {name: replace(v, judge=judge, seconds=seconds) for name, v in verdicts.items()}
    return judged
