"""Hidden states of a frozen causal model as eyes of a classifier judge: it has read more than any set of labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from mocae.errors import ConfigError
from mocae.models import LoadedBase, StopForward, at_layer, base_fingerprint, context_length, decoder_layers, load_base
from mocae.progress import bar

__all__ = ["StateReader", "load_reader"]

_BATCH = 16
_MIDDLE = 0.53
"""Where the layer lies that is read by default, as a share of the depth (docs/judges.md)."""
_MOST_TOKENS = 1024
"""Tokens of a prompt with its answer; what is longer loses the beginning of its prompt, then the end of its answer."""

_Floats = npt.NDArray[np.float32]


class StateReader:
    """Answers to the mean hidden states of their tokens, after the prompt, at a few layers of a frozen causal model.

    Args:
        base: the model, with nothing attached to it.
        layers: numbers of decoder layers whose input is read, see `mocae.models.at_layer`; None: one in the middle.
        name: of the model, as it was given.

    Raises:
        ConfigError: no layers, or the model has fewer.
    """

    def __init__(self, base: LoadedBase, *, layers: Sequence[int] | None = None, name: str) -> None:
        depth = len(decoder_layers(base.model))
        self.layers = tuple(sorted({round(_MIDDLE * depth)} if layers is None else set(layers)))
        if not self.layers or not 0 <= self.layers[0] <= self.layers[-1] <= depth:
            raise ConfigError(
                f"states of {name!r}: layers {list(self.layers)}; the model has {depth} decoder layers, give numbers "
                f"from 0 to {depth}"
            )
        self.name, self.fingerprint = name, base_fingerprint(base.model)
        self._model, self._tokenizer = base.model, base.tokenizer
        self._limit = min(_MOST_TOKENS, context_length(base.model))
        self._kept: dict[bytes, _Floats] | None = None

    def read(self, pairs: Sequence[tuple[str, str]]) -> _Floats:
        """Return the mean states of the answers of pairs of prompt and answer, shape (N, F), in their order."""
        kept = {} if self._kept is None else self._kept
        keys = [self._key(*pair) for pair in pairs]
        missing = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in kept}
        fresh = dict(zip(missing, self._passes(list(missing.values())), strict=True))
        if self._kept is not None:
            self._kept |= fresh
        return np.stack([fresh[key] if key in fresh else kept[key] for key in keys])

    @contextmanager
    def remembered(self) -> Iterator[None]:
        """Return a context in which states are taken from a file of this model's, and kept there at its end.

        The file lies in `mocae` below `XDG_CACHE_HOME`, or `~/.cache`. Where it cannot be read or written all are
        read again.
        """
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = root / "mocae" / f"states-{self._identity()[:24]}.npz"
        kept: dict[bytes, _Floats] = {}
        with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
            file = np.load(BytesIO(path.read_bytes()), allow_pickle=False)
            kept = dict(zip(map(bytes, file["keys"]), file["states"], strict=True))
        self._kept, before = kept, len(kept)
        try:
            yield
        finally:
            self._kept = None
            if len(kept) > before:
                with suppress(OSError):
                    _write(path, kept)

    def _identity(self) -> str:
        said = f"{self.fingerprint} {self.layers} {self._model.dtype} {self._limit}"
        return hashlib.sha256(said.encode()).hexdigest()

    def _key(self, prompt: str, answer: str) -> bytes:
        text = f"{len(prompt)} {prompt}{answer}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def _passes(self, pairs: Sequence[tuple[str, str]]) -> list[_Floats]:
        """Return the row of each pair; pairs of similar length are read together."""
        encoded = [self._encoded(*pair) for pair in pairs]
        order = sorted(range(len(pairs)), key=lambda i: len(encoded[i][0]))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        rows: dict[int, _Floats] = {}
        with ExitStack() as stack:
            shown = stack.enter_context(bar(len(batches), "states of answers")) if len(batches) > 1 else None
            for some in batches:
                rows |= zip(some, self._means([encoded[i] for i in some]), strict=True)
                if shown is not None:
                    shown.advance()
            if shown is not None:
                shown.finish()
        return [rows[i] for i in range(len(pairs))]

    def _encoded(self, prompt: str, answer: str) -> tuple[list[int], int]:
        """Return the token ids of prompt and answer, and where the answer starts, at the last where it is empty."""
        head: list[int] = self._tokenizer(f"{prompt.strip()}\n")["input_ids"]
        tail: list[int] = self._tokenizer(answer, add_special_tokens=False)["input_ids"]
        head = head[-max(1, self._limit - len(tail)) :]
        both = [*head, *tail][: self._limit]
        return both, min(len(head), len(both) - 1)

    def _means(self, encoded: Sequence[tuple[list[int], int]]) -> _Floats:
        """Return the mean states of the answers, shape (B, F)."""
        import torch

        shape = (len(encoded), max(len(ids) for ids, _ in encoded))
        tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        weights = torch.zeros(shape)
        for i, (ids, start) in enumerate(encoded):
            tokens[i, : len(ids)], mask[i, : len(ids)] = torch.tensor(ids), 1
            weights[i, start : len(ids)] = 1 / (len(ids) - start)
        weights = weights[:, None].to(self._model.device)
        means: dict[int, Any] = {}

        def see(layer: int, hidden: Any) -> None:
            means[layer] = torch.bmm(weights, hidden.float())[:, 0]
            if layer == self.layers[-1]:
                raise StopForward

        with ExitStack() as stack, torch.inference_mode(), suppress(StopForward):
            for layer in self.layers:
                stack.enter_context(at_layer(self._model, layer, partial(see, layer)))
            device = self._model.device
            self._model(input_ids=tokens.to(device), attention_mask=mask.to(device), use_cache=False)
        states: _Floats = torch.cat([means[layer] for layer in self.layers], -1).cpu().numpy()
        return states


def _write(path: Path, kept: dict[bytes, _Floats]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as out:
        np.savez(
            out,
            keys=np.frombuffer(b"".join(kept), dtype=np.uint8).reshape(len(kept), -1),
            states=np.stack(list(kept.values())),
        )
    partial.replace(path)


@cache
def load_reader(model: str, layers: tuple[int, ...] | None = None) -> StateReader:
    """Return the reader of a model by folder, hub id or registered name, a copy of its own; loaded once a process.

    Raises:
        ConfigError: it cannot be loaded, or has fewer layers.
    """
    return StateReader(load_base(model), layers=layers, name=model)
