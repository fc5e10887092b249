"""Policies: from a batch of prompts to the weights of the experts."""

from mocae.policies.base import (
    Policy,
    PromptBatch,
    Reading,
    Sureness,
    named_weights,
)
from mocae.policies.code_book import CodeBook, CodeBookPolicy
from mocae.policies.fixed import FixedPolicy
from mocae.policies.mixture import Mixture
from mocae.policies.oracle import OraclePolicy
from mocae.policies.per_prompt import PerPrompt, Steered, choose
from mocae.policies.routed import RoutedPolicy, RouterOptions
from mocae.policies.routing_pass import RoutingPass
from mocae.policies.steering import UNSTEERED, Steering, SteeringVectors, entries_at_most, shape_weights, weights_vector

__all__ = [
    "UNSTEERED",
    "CodeBook",
    "CodeBookPolicy",
    "FixedPolicy",
    "Mixture",
    "OraclePolicy",
    "PerPrompt",
    "Policy",
    "PromptBatch",
    "Reading",
    "RoutedPolicy",
    "RouterOptions",
    "RoutingPass",
    "Steered",
    "Steering",
    "SteeringVectors",
    "Sureness",
    "choose",
    "entries_at_most",
    "named_weights",
    "shape_weights",
    "weights_vector",
]
