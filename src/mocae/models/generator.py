"""What answers prompts: one interface for a base model, a mixture of experts, and whatever else generates text."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.models.continuations import Continuation, continuation_scores
from mocae.models.load import LoadedBase

__all__ = ["BaseGenerator", "Generated", "Generator", "PlainModel", "Sureness", "Trace"]


class Sureness(NamedTuple):
    """How sure a router is of each prompt; nan where it does not say.

    Attributes:
        confidence: (B,), chance that the answer of the expert with the largest weight is acceptable; low where no
            expert can answer, or where nothing is known of such prompts.
        novelty: (B,), share of held-out calibration prompts that are more like the others than this prompt is.
    """

    confidence: Float[Tensor, " B"]
    novelty: Float[Tensor, " B"]

    def lists(self) -> tuple[list[float | None], list[float | None]]:
        """Return confidence and novelty of the prompts to six decimals, None in place of nan."""
        confidence, novelty = ([None if math.isnan(v) else round(v, 6) for v in both.tolist()] for both in self)
        return confidence, novelty


class Trace:
    """What a pass over prompts has chosen, once they were read.

    Attributes:
        alpha: (B, K), weight of each expert; None before, and without experts.
        sureness: of the choice; None where nothing is said of it.
    """

    alpha: Float[Tensor, "B K"] | None = None
    sureness: Sureness | None = None


class Generated(NamedTuple):
    """Answers to a batch of prompts.

    Attributes:
        ids: generated token ids, prompts included.
        weights: (B, K), of each expert for each prompt; K is 0 where there are no experts.
        confidence: of each prompt, the chance that the answer of the expert with the largest weight is acceptable; None
            where the model does not say.
        novelty: of each prompt, the share of held-out calibration prompts that are more like the others than it is;
            None there too.
    """

    ids: Tensor
    weights: Float[Tensor, "B K"]
    confidence: list[float | None]
    novelty: list[float | None]

    @classmethod
    def of(cls, ids: Tensor, trace: Trace) -> "Generated":
        """Return answers with what was chosen when the prompts were read."""
        none: list[float | None] = [None] * len(ids)
        weights = torch.zeros(len(ids), 0) if trace.alpha is None else trace.alpha
        return cls(ids, weights, *((none, none) if trace.sureness is None else trace.sureness.lists()))


@runtime_checkable
class Generator(Protocol):
    """What answers prompts.

    Attributes:
        base: model and tokenizer.
        experts: names of the experts, in the order of weights; empty where there are none.
        injection: text put in front of every prompt; None for none.
        mixed: whether the weights say something of an answer; not those of a plain model or of one adapter alone.
    """

    base: LoadedBase
    experts: tuple[str, ...]
    injection: str | None
    mixed: bool

    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> Generated:
        """Return an answer to each prompt.

        Args:
            input_ids: (B, T), padded on the left.
            attention_mask: (B, T); None: no padding.
            ids: identities of the prompts (`mocae.types.prompt_id`), needed by the oracle only.
            **generation: arguments of Hugging Face's `generate`.
        """
        ...

    def log_probs(
        self,
        prompts: Sequence[list[int]],
        continuations: Sequence[Sequence[list[int]]],
        *,
        ids: Sequence[str] | None = None,
        batch_tokens: int = 4096,
    ) -> list[list[Continuation]]:
        """Return the log-probability of every continuation of every prompt, see `continuation_scores`."""
        ...

    def release(self) -> None:
        """Give the base model back as it was. Twice is fine."""
        ...


class BaseGenerator:
    """What generators of this package share: a subclass says under which contexts the base model reads and writes.

    Args:
        base: model and tokenizer.
        injection: text put in front of every prompt; None for none.
        on_release: called by `release`; it may be called twice.

    Attributes:
        each_token: whether each token is weighed by what stands before it, so that choices cannot stand behind one
            another.
        cached: whether later passes read on from a key-value cache; else each pass reads the whole text again.
    """

    experts: tuple[str, ...] = ()
    mixed: bool = True
    each_token: bool = False
    cached: bool = True

    def __init__(
        self, base: LoadedBase, *, injection: str | None = None, on_release: Callable[[], object] | None = None
    ) -> None:
        self.base = base
        self.injection = injection
        self._on_release = on_release

    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> AbstractContextManager[Trace]:
        """Return a context in which the base model reads prompts, and what follows them, as this generator does.

        Args:
            inputs: what the first pass reads: input_ids and attention_mask.
            ids: identities of the prompts.
        """
        return nullcontext(Trace())

    def writing(self, alpha: Float[Tensor, "B K"], *, merged: bool = False) -> AbstractContextManager[Any]:
        """Return a context for one later pass over rows whose prompts were read before.

        Args:
            alpha: what `reading` has chosen for each row.
            merged: put weights, the same in all rows, into the base weights, where that can be.
        """
        return nullcontext()

    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> Generated:
        """Return an answer to each prompt, see `Generator`."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, "attention_mask": mask}
        with torch.no_grad(), self.reading(batch, ids or [""] * len(input_ids)) as trace:
            out = self.base.generate(**batch, **generation)
        return Generated.of(out, trace)

    def log_probs(
        self,
        prompts: Sequence[list[int]],
        continuations: Sequence[Sequence[list[int]]],
        *,
        ids: Sequence[str] | None = None,
        batch_tokens: int = 4096,
    ) -> list[list[Continuation]]:
        """Return the log-probability of every continuation of every prompt, see `continuation_scores`."""
        return continuation_scores(self, prompts, continuations, ids=ids, batch_tokens=batch_tokens)

    def release(self) -> None:
        """Give the base model back as it was. Twice is fine."""
        if self._on_release is not None:
            self._on_release()


class PlainModel(BaseGenerator):
    """A model whose answers come with no weights.

    Args:
        base: model and tokenizer.
        injection: see `BaseGenerator`.
        on_release: likewise.
        each_token: whether it weighs each token by itself, as one with PEFT's Arrow on it does.
    """

    mixed = False

    def __init__(
        self,
        base: LoadedBase,
        *,
        injection: str | None = None,
        on_release: Callable[[], object] | None = None,
        each_token: bool = False,
    ) -> None:
        super().__init__(base, injection=injection, on_release=on_release)
        self.each_token = each_token
