"""The next token of each row, chosen as each row asks; a row's choice does not depend on its neighbours."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.models import BaseDescription

__all__ = ["Sampler", "Sampling", "TokenLogprob", "choose", "log_probs_of"]

_GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 takes the most probable token.
        top_p: draw from the most probable tokens that together have this probability, in (0, 1].
        seed: equal seeds draw equal answers, whatever else is answered at the time; None: not repeatable.
        frequency_penalty: taken from a token's logit for each time the answer has it already.
        presence_penalty: taken once if the answer has it.
        logit_bias: token -> added to its logit.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


class Sampler:
    """The state of one row's sampling: its random numbers and the tokens it has said.

    Args:
        sampling: what the request asks for.
        base: what acts in every answer; None: nothing.
        prompt: the tokens that were read.
    """

    def __init__(self, sampling: Sampling, base: BaseDescription | None = None, *, prompt: Sequence[int] = ()) -> None:
        self.settings = sampling
        self._base = base if base is not None and base.logits else None
        self._tokens, self._n_prompt = list(prompt), len(prompt)
        self.greedy = sampling.temperature < _GREEDY_BELOW
        self._random = random.Random(sampling.seed)
        self._next = self._random.random()
        self._counts: Counter[int] = Counter()
        self._counting = bool(sampling.frequency_penalty or sampling.presence_penalty)

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before a token is chosen."""
        return bool(self._base or self._counts or self.settings.logit_bias)

    def adjust(self, logits: Float[Tensor, " V"]) -> None:
        """Apply penalties and biases, in place."""
        settings = self.settings
        if self._base is not None:
            known = self._tokens, self._n_prompt
            logits.copy_(self._base.logits.adjusted(logits, known[0], n_prompt=known[1], ends=self._base.end_tokens))
        for token, bias in settings.logit_bias.items():
            logits[token] += bias
        for token, count in self._counts.items():
            logits[token] -= settings.frequency_penalty * count + settings.presence_penalty

    def draw(self) -> float:
        """Return the random number of the next token, in [0, 1)."""
        return self._next

    def said(self, token: int) -> None:
        """Note a token of the answer."""
        self._next = self._random.random()
        self._tokens.append(token)
        if self._counting:
            self._counts[token] += 1


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log-probability, with the most probable ones at its place (token, log-probability)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def choose(logits: Float[Tensor, "B V"], samplers: Sequence[Sampler]) -> tuple[list[int], list[bool]]:
    """Return the token of each row, and whether the row's logits are finite (if not, the token means nothing).

    Args:
        logits: fp32.
        samplers: one a row.
    """
    if any(sampler.adjusts for sampler in samplers):
        logits = logits.clone()
        for i, sampler in enumerate(samplers):
            sampler.adjust(logits[i])
    best = logits.max(dim=-1)  # the maximum of a row with a nan is nan
    finite = torch.isfinite(best.values).tolist()
    tokens: list[int] = best.indices.tolist()
    rows = [i for i, sampler in enumerate(samplers) if not sampler.greedy and finite[i]]
    if rows:
        drawn = _draw(logits[rows], [samplers[i] for i in rows])
        for i, token in zip(rows, drawn, strict=True):
            tokens[i] = token
    for sampler, token in zip(samplers, tokens, strict=True):
        sampler.said(token)
    return tokens, finite


def _draw(logits: Float[Tensor, "B V"], samplers: Sequence[Sampler]) -> list[int]:
    """Return a token of each row by inverting the distribution at one random number a row."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits.device)[:, None]

    temperature = column([sampler.settings.temperature for sampler in samplers])
    top_p = column([sampler.settings.top_p for sampler in samplers])
    shifted = logits - logits.max(dim=-1, keepdim=True).values  # a large one over a small temperature is infinite
    probs, order = torch.softmax(shifted / temperature, dim=-1).sort(dim=-1, descending=True, stable=True)
    kept = probs * (probs.cumsum(-1) - probs < top_p)
    kept[:, 0] = probs[:, 0]  # whatever top_p is in fp32
    mass = kept.cumsum(-1)
    at = column([sampler.draw() for sampler in samplers]) * mass[:, -1:]
    place = (mass <= at).sum(-1, keepdim=True).clamp_max((kept > 0).sum(-1, keepdim=True) - 1)
    picked: list[int] = order.gather(1, place)[:, 0].tolist()
    return picked


def log_probs_of(logits: Float[Tensor, " V"], token: int, *, top: int) -> TokenLogprob:
    """Return the log-probability of a token and of the `top` most probable ones."""
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    best = log_probs.topk(min(top, len(log_probs)))
    pairs = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return TokenLogprob(token, float(log_probs[token]), pairs)
