"""What answers prompts: one interface for a base model, a mixture of experts, and whatever else generates text."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.models.continuations import Continuation, continuation_scores
from mocae.models.load import LoadedBase

__all__ = ["BaseGenerator", "Generated", "Generator", "PlainModel"]


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
    def unsure(cls, ids: Tensor, weights: Float[Tensor, "B K"]) -> "Generated":
        """Return answers of a model that does not say how sure it is."""
        return cls(ids, weights, [None] * len(weights), [None] * len(weights))


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

    @abstractmethod
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


class BaseGenerator(Generator):
    """What generators of this package share.

    Args:
        base: model and tokenizer.
        injection: text put in front of every prompt; None for none.
        on_release: called by `release`; it may be called twice.
    """

    experts: tuple[str, ...] = ()
    mixed: bool = True

    def __init__(
        self, base: LoadedBase, *, injection: str | None = None, on_release: Callable[[], object] | None = None
    ) -> None:
        self.base = base
        self.injection = injection
        self._on_release = on_release

    @property
    def each_token(self) -> bool:
        """Whether each token is weighed by what stands before it, so that choices cannot stand behind one another."""
        return False

    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> AbstractContextManager[Any]:
        """Return a context in which the base model reads prompts, and what follows them, as this generator does.

        Args:
            inputs: what the first pass reads: input_ids and attention_mask.
            ids: identities of the prompts.
        """
        return nullcontext()

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
    each_token = False

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

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> Generated:
        """Return what Hugging Face's `generate` returns, and weights of no expert, (B, 0)."""
        out = self.base.generate(input_ids, attention_mask=attention_mask, **generation)
        return Generated.unsure(out, torch.zeros(len(input_ids), 0))
