"""Constant weights folded into the base weights: what can be folded, when it pays, and the mixtures that are kept."""

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank.linear import is_plain
from mocae.errors import ConfigError, ModelMismatchError

__all__ = [
    "LONG_ANSWER_TOKENS",
    "MergedCache",
    "Mode",
    "has_room",
    "refuse_unmergeable",
    "same_for_all",
    "swapped",
    "why_unmergeable",
]

Mode: TypeAlias = Literal["auto", "stacked", "merged"]
"""How weights are put in force: beside the base weights, in them, or whichever is faster."""

LONG_ANSWER_TOKENS = 256
"""From how many new tokens on `auto` merges. Merging took the time that 60 to 110 stacked tokens lose on a 97 M Llama
(docs/performance.md), and answers often end early. A fixed number, so that equal calls compute equal things."""

_ROOM = 1.25  # of what the merged weights take; the KV cache needs some too


class MergedCache:
    """The merged weights of the mixtures used last, at most so many bytes of them.

    The base weights and experts they were made of must stay as they are meanwhile.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[tuple[float, ...], dict[nn.Linear, nn.Parameter]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of mixtures kept."""
        return len(self._kept)

    def __contains__(self, alpha: Float[Tensor, " K"]) -> bool:
        """Return whether the mixture is kept."""
        return _key(alpha) in self._kept

    @property
    def n_bytes(self) -> int:
        """Memory of the mixtures kept."""
        return sum(_bytes(mixture) for mixture in self._kept.values())

    def get(self, alpha: Float[Tensor, " K"]) -> dict[nn.Linear, nn.Parameter] | None:
        """Return a mixture's weights, which is then the one used last, or None."""
        mixture = self._kept.get(_key(alpha))
        if mixture is not None:
            self._kept.move_to_end(_key(alpha))
        return mixture

    def put(self, alpha: Float[Tensor, " K"], mixture: dict[nn.Linear, nn.Parameter]) -> None:
        """Keep a mixture, and drop those not used for longest until all fit; one that never fits is not kept."""
        if _bytes(mixture) > self.max_bytes:
            return
        self._kept[_key(alpha)] = mixture
        self.shrink(self.max_bytes)

    def shrink(self, max_bytes: int) -> None:
        """Drop the mixtures not used for longest until the others take at most so many bytes."""
        while self._kept and self.n_bytes > max_bytes:
            self._kept.popitem(last=False)


def why_unmergeable(model: nn.Module, linears: Mapping[str, nn.Linear]) -> str | None:
    """Return why nothing can be merged into one of the model's linears, by name; None when all can take it."""
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for name, linear in linears.items():
        weight = linear.weight
        if weight.is_meta:
            return f"{name!r} is on the meta device; load the base model's weights first"
        if not is_plain(linear):
            return (
                f"{name!r} is quantised ({weight.dtype}, {type(weight).__name__}, {tuple(weight.shape)}); nothing can "
                "be merged into it. Load the base model in bf16, or keep the experts beside it"
            )
        if owners[id(weight)] > 1:
            return (
                f"the weight of {name!r} is tied to another module, which would change with it; untie it "
                "(tie_word_embeddings=false), or keep the experts beside it"
            )
    return None


def refuse_unmergeable(model: nn.Module, linears: Mapping[str, nn.Linear]) -> None:
    """Raise if nothing can be merged into some linear.

    Raises:
        ModelMismatchError: a weight is quantised, not loaded, or tied to another module.
    """
    reason = why_unmergeable(model, linears)
    if reason is not None:
        raise ModelMismatchError(reason)


@contextmanager
def swapped(weights: Mapping[nn.Linear, nn.Parameter]) -> Iterator[None]:
    """Return a context in which linears have other weights; after it the original parameters are there again."""
    before = {linear: linear._parameters["weight"] for linear in weights}
    try:
        for linear, weight in weights.items():
            linear._parameters["weight"] = weight  # a tenth of the time of nn.Module's own assignment
        yield
    finally:
        for linear, original in before.items():
            linear._parameters["weight"] = original


def has_room(n_bytes: int, device: torch.device) -> bool:
    """Return whether a device has so much memory free, with a margin; a processor that does not tell has none."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] > _ROOM * n_bytes
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            memory = dict(line.split(":", 1) for line in file)
        return int(memory["MemAvailable"].split()[0]) * 1024 > _ROOM * n_bytes
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > _ROOM * n_bytes
    except (AttributeError, ValueError, OSError):  # not every system tells
        return False


def same_for_all(alpha: Float[Tensor, "..."]) -> Float[Tensor, " K"] | None:
    """Return the one row of weights that holds for every row and token, None if they differ.

    Raises:
        ConfigError: no rows.
    """
    rows = alpha.detach().reshape(-1, alpha.shape[-1])
    if not len(rows):
        raise ConfigError(f"weights of shape {tuple(alpha.shape)} have no rows; give one a prompt")
    return rows[0] if bool((rows == rows[0]).all()) else None


def _key(alpha: Tensor) -> tuple[float, ...]:
    return tuple(alpha.detach().float().tolist())


def _bytes(mixture: dict[nn.Linear, nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in mixture.values())
