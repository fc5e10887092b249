"""A sentence encoder from Hugging Face as eyes of a classifier judge: it has read more than any set of labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mocae.errors import ConfigError, DataError

__all__ = ["SentenceEncoder", "load_encoder"]

_BATCH = 32


class SentenceEncoder:
    """Texts to unit vectors: the masked mean of the last hidden states, as sentence-transformers pool them.

    Args:
        model: an encoder in evaluation mode.
        tokenizer: of the model.
        name: as it was given.
        fingerprint: identity of the weights.
        max_length: most tokens read of a text.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, fingerprint: str, max_length: int = 128) -> None:
        self._model, self._tokenizer, self._max_length = model, tokenizer, max_length
        self.name, self.fingerprint = name, fingerprint

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors, shape (N, D), in the order of the texts; zeros for a text of blanks.

        Raises:
            DataError: no texts.
        """
        import torch

        if not texts:
            raise DataError("encoder: no texts; expected at least one")
        # Some tokenizers make no token of an empty text, and some models cannot read none.
        order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(texts[i]))
        vectors = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                some = order[start : start + _BATCH]
                batch = self._tokenizer(
                    [texts[i] for i in some],
                    padding=True,
                    truncation=True,
                    max_length=self._max_length,
                    return_tensors="pt",
                ).to(self._model.device)
                hidden = self._model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][..., None].float()
                pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)
                vectors[some] = pooled.cpu().numpy()
        return vectors

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        """Return the vectors of prompts and answers side by side, shape (N, 2 D)."""
        prompts = list(dict.fromkeys(prompt for prompt, _ in pairs))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        encoded = self.encode(prompts)[[place[prompt] for prompt, _ in pairs]]
        return np.concatenate([encoded, self.encode([answer for _, answer in pairs])], axis=1)


@cache
def load_encoder(model: str) -> SentenceEncoder:
    """Return the encoder of a folder or hub id, such as "sentence-transformers/all-MiniLM-L6-v2"; read once a process.

    Raises:
        ConfigError: it cannot be loaded, or has no safetensors weights.
    """
    from transformers import AutoModel, AutoTokenizer

    from mocae.models import without_library_bars

    try:
        with without_library_bars():
            network: Any = AutoModel.from_pretrained(model, use_safetensors=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"encoder {model!r} cannot be loaded: {reason}. Accepted: a folder or hub id of an encoder with "
            "safetensors weights"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked out of the mean, whatever stands there
    digest = hashlib.sha256()
    for name, weights in sorted(network.state_dict().items()):
        digest.update(name.encode() + weights.detach().cpu().float().numpy().tobytes())
    return SentenceEncoder(network.eval(), tokenizer, name=str(Path(model)), fingerprint=digest.hexdigest()[:16])
