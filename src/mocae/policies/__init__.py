"""Policies: from a batch of prompts to the weights of the experts."""

from mocae.policies.base import (
    POLICIES,
    Parts,
    Policy,
    PromptBatch,
    Reading,
    Sureness,
    build_policy,
    shape_weights,
    weights_vector,
)
from mocae.policies.code_book import CodeBook, CodeBookPolicy
from mocae.policies.fixed import FixedPolicy
from mocae.policies.mixture import Mixture
from mocae.policies.oracle import OraclePolicy
from mocae.policies.per_prompt import PerPrompt, Steered, choose
from mocae.policies.routed import RoutedPolicy, RouterOptions
from mocae.policies.routing_pass import RoutingPass

__all__ = [
    "POLICIES",
    "CodeBook",
    "CodeBookPolicy",
    "FixedPolicy",
    "Mixture",
    "OraclePolicy",
    "Parts",
    "PerPrompt",
    "Policy",
    "PromptBatch",
    "Reading",
    "RoutedPolicy",
    "RouterOptions",
    "RoutingPass",
    "Steered",
    "Sureness",
    "build_policy",
    "choose",
    "shape_weights",
    "weights_vector",
]
