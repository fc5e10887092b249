"""Judges behind any OpenAI-compatible endpoint: prompt files, a client that loses nothing, a cache of replies."""

from __future__ import annotations

from mocae.judges.endpoint.cache import CachedReply, ReplyCache, reply_key
from mocae.judges.endpoint.client import EndpointClient
from mocae.judges.endpoint.judge import EndpointJudge, endpoint_judge, filled
from mocae.judges.endpoint.parsers import PARSERS, Parsed
from mocae.judges.endpoint.prompts import JudgePrompt, load_prompt, prompt_names
from mocae.judges.endpoint.values import Asked, Endpoint, Messages, Usage

__all__ = [
    "PARSERS",
    "Asked",
    "CachedReply",
    "Endpoint",
    "EndpointClient",
    "EndpointJudge",
    "JudgePrompt",
    "Messages",
    "Parsed",
    "ReplyCache",
    "Usage",
    "endpoint_judge",
    "filled",
    "load_prompt",
    "prompt_names",
    "reply_key",
]
