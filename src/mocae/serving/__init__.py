"""Serving: many requests at once on one model, each with its own weights of the experts."""

from mocae.serving.engine import Engine, Limits
from mocae.serving.request import Delta, Event, Failed, Finished, Request, Ticket
from mocae.serving.rows.sampling import Sampling, TokenLogprob

__all__ = [
    "Delta",
    "Engine",
    "Event",
    "Failed",
    "Finished",
    "Limits",
    "Request",
    "Sampling",
    "Ticket",
    "TokenLogprob",
]
