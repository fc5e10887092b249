"""Steering: what a request may say about the weights of the experts, and what becomes of the weights then."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from mocae.errors import ConfigError, unknown_name

__all__ = ["UNSTEERED", "Steering", "SteeringVectors", "entries_at_most", "shape_weights", "weights_vector"]

_ROUNDING = 1e-6
"""How far shares given as decimal fractions may sum to more than 1."""
_NEUTRAL = {"steer": 1.0, "prefer": 0.0, "at_least": 0.0, "at_most": 1.0}
"""Word -> the number that changes nothing."""
Words: TypeAlias = Mapping[str, float] | None


def entries_at_most(most: int) -> BeforeValidator:
    """Return a check of an object's size before anything in it is looked at."""

    def few(data: Any) -> Any:
        if isinstance(data, dict) and len(data) > most:
            raise ValueError(f"{len(data)} entries, at most {most}")
        return data

    return BeforeValidator(few)


_Factor = Annotated[float, Field(ge=0, le=1e6)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Signed = Annotated[float, Field(ge=-1e6, le=1e6)]
_FEW = entries_at_most(256)


class Steering(BaseModel):
    """What one request says about who answers, by the names of the experts.

    The words are the same in Python, at the command line, on the chat page, and in requests to server and gateway. They
    act in this order:

    1. `prefer` raises an expert's logit over those of the others, in standard deviations of the router's logits.
    2. `steer` multiplies the weights, which are then scaled back to the sum they had.
    3. The system prunes as ever (`top_k`, `threshold`). What is left is its choice w; experts with `at_most` 0 are not
       counted.
    4. `at_least` and `at_most` are shares of the answer, of a whole of 1. A choice within them stays. Else
       alpha_k = min(max(c w_k, at_least_k), at_most_k) with the c at which alpha sums to 1: experts between their
       bounds keep their proportions (of all weights within the bounds these have the least KL divergence from w).
       Where those chosen may not have everything, the next choices join them, the likeliest first. An expert to
       which the system gives nothing at all gets its `at_least`; what is left in the end is the base model's.

    So with `top_k: 1`, where one expert answers alone, `at_least: {honesty: 0.5}` is half honesty and half the router's
    choice, or honesty alone where that is the choice, and `at_most: {honesty: 0}` the choice among the others.

    Raises:
        ValidationError: an unknown word, a number that is not finite or out of range, shares that no weights can have,
            or `weights` beside another word.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    steer: Annotated[dict[str, _Factor] | None, _FEW] = Field(
        default=None, description="Expert -> factor on its routing weight, before normalising and top_k."
    )
    prefer: Annotated[dict[str, _Signed] | None, _FEW] = Field(
        default=None, description="Expert -> how much surer of it, in standard deviations of the router's logits."
    )
    at_least: Annotated[dict[str, _Share] | None, _FEW] = Field(
        default=None, description="Expert -> smallest share of the answer; together at most 1."
    )
    at_most: Annotated[dict[str, _Share] | None, _FEW] = Field(
        default=None, description="Expert -> largest share of the answer."
    )
    weights: Annotated[dict[str, _Signed] | None, _FEW] = Field(
        default=None, description="Expert -> weight in place of routing; negative allowed, 0 where none is given."
    )

    @field_validator("at_least")
    @classmethod
    def _room(cls, shares: dict[str, float] | None) -> dict[str, float] | None:
        total = sum((shares or {}).values())
        if total > 1 + _ROUNDING:
            raise PydanticCustomError("shares", f"the shares sum to {total:g}; accepted: at most 1 together")
        return shares

    @field_validator("at_most")
    @classmethod
    def _order(cls, shares: dict[str, float] | None, info: Any) -> dict[str, float] | None:
        low = info.data.get("at_least") or {}
        for name, high in (shares or {}).items():
            if low.get(name, 0.0) > high:
                text = (
                    f"at most {high:g} of {name!r}, and at least {low[name]:g}; accepted: at_least no more than at_most"
                )
                raise PydanticCustomError("shares", text)
        return shares

    @field_validator("weights")
    @classmethod
    def _alone(cls, weights: dict[str, float] | None, info: Any) -> dict[str, float] | None:
        if weights is not None and (others := [word for word in _NEUTRAL if info.data.get(word)]):
            text = f"weights replaces what the system chooses, {' and '.join(others)} changes it: give one of them"
            raise PydanticCustomError("weights", text)
        return weights

    @classmethod
    def of(cls, **words: Words) -> "Steering":
        """Return the steering of these words.

        Raises:
            ConfigError: see the class; it says which word and expert, what was received and what is accepted.
        """
        try:
            return cls.model_validate(words)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            place, problem = ".".join(map(str, detail["loc"])), detail["msg"].replace("Input should", "it should")
            if detail["type"] == "extra_forbidden":
                problem = unknown_name("word of steering", place, cls.model_fields)
            raise ConfigError(f"{place}: got {detail['input']!r}; {problem}") from error

    @property
    def words(self) -> dict[str, Any]:
        """Return what was said, by its word; empty `weights` say that no expert answers, other empty ones nothing."""
        said = {word: getattr(self, word) for word in Steering.model_fields}
        return {word: named for word, named in said.items() if named or (word == "weights" and named is not None)}

    def vectors(self, experts: Sequence[str]) -> "SteeringVectors":
        """Return the words as one number an expert, without those that change nothing.

        Raises:
            ConfigError: a name that is no expert.
        """
        found = {}
        for word, neutral in _NEUTRAL.items():
            vector = weights_vector({**dict.fromkeys(experts, neutral), **(getattr(self, word) or {})}, experts)
            found[word] = None if (vector == neutral).all() else vector
        return SteeringVectors(**found)


class SteeringVectors(NamedTuple):
    """The words of `Steering` but `weights`, one number an expert; None: says nothing."""

    steer: Float[Tensor, " K"] | None = None
    prefer: Float[Tensor, " K"] | None = None
    at_least: Float[Tensor, " K"] | None = None
    at_most: Float[Tensor, " K"] | None = None


UNSTEERED = SteeringVectors()


def weights_vector(weights: Mapping[str, float], experts: Sequence[str]) -> Float[Tensor, " K"]:
    """Return weights given by name as a vector, 0 where none is given.

    Raises:
        ConfigError: a name that is no expert, or a weight that is not finite.
    """
    for name, value in weights.items():
        if name not in experts:
            raise ConfigError(unknown_name("expert", name, experts))
        if not math.isfinite(value):
            raise ConfigError(f"the number for expert {name!r} is {value}; it must be finite")
    return torch.tensor([float(weights.get(name, 0.0)) for name in experts])


def shape_weights(
    alpha: Float[Tensor, "B K"],
    steering: SteeringVectors = UNSTEERED,
    *,
    top_k: int | None = None,
    threshold: float = 0.0,
) -> Float[Tensor, "B K"]:
    """Return weights after factors, pruning and bounds, in this order (`Steering` says what they do).

    Without bounds a row keeps its sum, unless it holds a negative weight (its sum says nothing about its size) or all
    of it becomes 0: the base model. With bounds negative weights count as 0, and the row becomes shares.

    Args:
        alpha: routing weights.
        steering: `prefer` is not looked at: it acts on logits.
        top_k: keep the k largest by magnitude, at least 1; of equal ones the first.
        threshold: drop weights smaller than this in magnitude, but never the largest of a row.
    """
    shaped = alpha if steering.steer is None else _with_sum_of(alpha, alpha * steering.steer)
    if steering.at_least is None and steering.at_most is None:
        return _with_sum_of(shaped, shaped * _kept(shaped, top_k, threshold))
    zeros = torch.zeros(alpha.shape[1], dtype=torch.float64)
    low = zeros if steering.at_least is None else steering.at_least.double()
    high = zeros + 1 if steering.at_most is None else steering.at_most.double()
    shaped = shaped.double().clamp_min(0) * (high > 0)
    shaped = shaped / shaped.sum(1, keepdim=True).clamp_min(1e-300)
    kept = _kept(shaped, top_k, threshold) | _needed(shaped, low, high)
    return _within(shaped * kept, low, high).to(alpha.dtype)


def _kept(weights: Float[Tensor, "B K"], top_k: int | None, threshold: float) -> Bool[Tensor, "B K"]:
    """Return which weights stay when a row is pruned, see `shape_weights`."""
    size = weights.abs()
    order = size.argsort(dim=1, descending=True, stable=True)
    never, always = torch.zeros_like(size, dtype=torch.bool), torch.ones_like(order, dtype=torch.bool)
    keep = (size >= threshold).scatter(1, order[:, :1], always)
    return keep & never.scatter(1, order[:, :top_k], always)


def _needed(weights: Float[Tensor, "B K"], low: Float[Tensor, " K"], high: Float[Tensor, " K"]) -> Bool[Tensor, "B K"]:
    """Return which experts must share the answer, the largest first, so that their bounds leave room for all of it."""
    order = weights.argsort(dim=1, descending=True, stable=True)
    gain = (high - low)[order]
    room_before = low.sum() + gain.cumsum(1) - gain
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, room_before < 1 - _ROUNDING)


def _within(weights: Float[Tensor, "B K"], low: Float[Tensor, " K"], high: Float[Tensor, " K"]) -> Float[Tensor, "B K"]:
    """Return min(max(c w, low), high) with the smallest c of each row at which the sum is 1, or as large as can be."""
    some = weights > 0
    total = torch.where(some, high, low).sum(1, keepdim=True).clamp_max(1)
    safe = weights.where(some, torch.ones_like(weights))
    begins, ends = low / safe, high / safe  # the c between which an expert is free
    edges = torch.cat([begins * some, ends * some], 1).sort(1).values
    # The sum grows from edge to edge, in a straight line between two of them.
    sums = (edges[:, :, None] * weights[:, None]).clamp(low, high).sum(2)
    first = (sums < total).sum(1, keepdim=True).clamp_max(edges.shape[1] - 1)
    edge, over = edges.gather(1, first), sums.gather(1, first) - total
    slope = (weights * ((begins < edge) & (edge <= ends))).sum(1, keepdim=True)
    c = edge - (over / slope).where(slope > 0, torch.zeros_like(over))
    return (c * weights).clamp(low, high)


def _with_sum_of(before: Tensor, after: Tensor) -> Tensor:
    """Scale each row of `after` to the sum of its row of `before`, where neither is 0 nor holds a negative weight."""
    total, wanted = after.sum(1, keepdim=True), before.sum(1, keepdim=True)
    scalable = (before >= 0).all(1, keepdim=True) & (total > 0)
    return torch.where(scalable, after * (wanted / total.where(scalable, torch.ones_like(total))), after)
