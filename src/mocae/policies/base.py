"""What a policy is: prompts in, one weight an expert out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.calibration import AlignXRouter
from mocae.errors import ConfigError, unknown_name
from mocae.registry import Registry

__all__ = ["POLICIES",
    "Parts",
    "Policy",
    "PromptBatch",
    "Reading",
    "build_policy",
    "shape_weights",
    "weights_vector",
]


@dataclass(frozen=True, slots=True)
class Reading:
    """Where in the base model a policy reads the prompt: the input of decoder layer `layer`, pooled."""

    layer: int
    pool: str


@dataclass(frozen=True, slots=True, eq=False)
class PromptBatch:
    """Prompts to route: their identities (`mocae.types.prompt_id`), and pooled hidden states if the policy reads them."""

    ids: Sequence[str]
    pooled: Float[Tensor, "B P"] | None = None


@runtime_checkable
class Policy(Protocol):
    """Maps a batch of prompts to weights of the experts.

    `reads` says which hidden states `route` needs, None when it needs none. `calibrated` says that a weight is meant as
    the probability that its expert's answer is acceptable, so that a calibration error makes sense.
    """

    reads: Reading | None
    calibrated: bool

    def route(self, batch: PromptBatch) -> Float[Tensor, "B K"]:
        """Return one weight an expert for each prompt; rows need not sum to 1."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What policies are made from.

    Attributes:
        experts: names of the experts, in the order of the weights.
        routers: fitted routers by name ("alignx", "linear").
        outcomes: for each judged prompt, which experts' answers were acceptable; only the oracle looks.
    """

    experts: tuple[str, ...]
    routers: Mapping[str, AlignXRouter] = field(default_factory=dict)
    outcomes: Mapping[str, Sequence[bool]] = field(default_factory=dict)


class PolicyFactory(Protocol):
    """Makes a policy from parts and the options a recipe gives; raises ConfigError for options that do not fit."""

    def __call__(self, parts: Parts, argument: str | None, **options: object) -> Policy:
        """Return the policy; `argument` is what stands behind the colon in `expert:helpfulness`."""
        ...


POLICIES: Registry[PolicyFactory] = Registry(
    "policy",
    entry_point_group="mocae.policies",
    builtin={
        "base": ("mocae.policies.fixed:base", "the base model, no expert"),
        "expert": ("mocae.policies.fixed:expert", "one expert alone: expert:<axis>"),
        "uniform": ("mocae.policies.fixed:uniform", "every expert with weight 1 / K"),
        "static": ("mocae.policies.fixed:static", "the weights given in options.weights"),
        "sum": ("mocae.policies.fixed:total", "every expert with weight 1 (task arithmetic)"),
        "linear": ("mocae.policies.routed:linear", "router trained on the axis a prompt came from, uncalibrated"),
        "alignx": ("mocae.policies.routed:alignx", "router fitted on outcomes, with fractal and natural calibrators"),
        "oracle": ("mocae.policies.oracle:oracle", "the best expert by verdict on the very prompt: an upper bound"),
    },
)
"""Policies by name; `build_policy` makes one."""


def build_policy(name: str, parts: Parts, **options: object) -> Policy:
    """Return the policy called `name` ("alignx", "expert:honesty", ...).

    Raises:
        PluginError: no such policy.
        ConfigError: an option or argument does not fit.
    """
    head, _, argument = name.partition(":")
    try:
        return POLICIES.get(head)(parts, argument or None, **options)
    except TypeError as error:
        raise ConfigError(f"policy {name!r}: options {sorted(options)} do not fit: {error}") from error


def weights_vector(weights: Mapping[str, float], experts: Sequence[str]) -> Float[Tensor, " K"]:
    """Return weights given by name as a vector, 0 where none is given.

    Raises:
        ConfigError: a name that is no expert, or a weight that is not finite.
    """
    for name, value in weights.items():
        if name not in experts:
            raise ConfigError(unknown_name("expert", name, experts))
        if not torch.isfinite(torch.tensor(float(value))):
            raise ConfigError(f"weight of expert {name!r} is {value}; it must be a finite number")
    return torch.tensor([float(weights.get(name, 0.0)) for name in experts])


def shape_weights(
    alpha: Float[Tensor, "B K"],
    *,
    steer: Float[Tensor, " K"] | None = None,
    top_k: int | None = None,
    threshold: float = 0.0,
) -> Float[Tensor, "B K"]:
    """Return weights after steering and pruning; what is left keeps the row's sum where that sum is positive.

    Args:
        alpha: routing weights.
        steer: factor an expert, applied before normalising (so steering one axis up takes from the others).
        top_k: keep the largest k (by magnitude).
        threshold: drop weights smaller than this in magnitude, but never the largest of a row.
    """
    if steer is None and top_k is None and threshold == 0:
        return alpha
    shaped = alpha if steer is None else alpha * steer
    size = shaped.abs()
    keep = size >= threshold
    if top_k is not None and top_k < alpha.shape[1]:
        keep &= torch.zeros_like(keep).scatter(1, size.topk(top_k, dim=1).indices, True)
    keep |= size == size.amax(1, keepdim=True)
    shaped = shaped * keep
    total, wanted = shaped.sum(1, keepdim=True), alpha.sum(1, keepdim=True)
    scalable = (total > 1e-9) & (wanted > 1e-9)
    return torch.where(scalable, shaped * wanted / torch.where(scalable, total, 1.0), shaped)
