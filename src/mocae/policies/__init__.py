"""Policies: from a batch of prompts to the weights of the experts."""

from mocae.policies.base import (
    POLICIES,
    FittedPolicy,
    Parts,
    Policy,
    PromptBatch,
    Reading,
    Sureness,
    build_policy,
    output_of,
    route_steered,
    shape_weights,
    weights_vector,
)
from mocae.policies.code_book import CodeBook, CodeBookPolicy
from mocae.policies.fixed import FixedPolicy
from mocae.policies.mixture import Generator, Mixture, PlainModel, Routed
from mocae.policies.oracle import OraclePolicy
from mocae.policies.per_prompt import PerPrompt, Steered
from mocae.policies.routed import RoutedPolicy, RouterOptions

__all__ = [
    "POLICIES",
    "CodeBook",
    "CodeBookPolicy",
    "FittedPolicy",
    "FixedPolicy",
    "Generator",
    "Mixture",
    "OraclePolicy",
    "Parts",
    "PerPrompt",
    "PlainModel",
    "Policy",
    "PromptBatch",
    "Reading",
    "Routed",
    "RoutedPolicy",
    "RouterOptions",
    "Steered",
    "Sureness",
    "build_policy",
    "output_of",
    "route_steered",
    "shape_weights",
    "weights_vector",
]
