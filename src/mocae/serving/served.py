"""What is served: a finished run as names of models, each of them a policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mocae.errors import PluginError, ServingError, unknown_name
from mocae.policies import Mixture, Parts, Policy, build_policy, choose
from mocae.prompts import ChatFormat, PromptFormat
from mocae.serving.conversation import Turn, conversation_tokens

__all__ = ["Artifact", "Served", "ServedModel"]


@runtime_checkable
class Artifact(Protocol):
    """What serving needs of a finished run; `mocae.load` returns one."""

    mixture: Mixture
    parts: Parts
    options: dict[str, Mapping[str, Any]]
    prompt_format: PromptFormat
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name clients can ask for.

    Attributes:
        name: "alignx", "base", "expert:honesty", ...
        policy: what chooses the weights.
        about: one line for people.
    """

    name: str
    policy: Policy
    about: str


class Served:
    """The models of a finished run, and how requests become tokens and policies.

    Args:
        artifact: the run.
        version: of this package, told in responses.

    Raises:
        ServingError: one of its policies routes every token.

    Attributes:
        models: by name, the best router first.
        default: name of the run's own policy.
        vocabulary: number of tokens.
        context: tokens the model can read and write together.
        max_new_tokens: length of an answer when a request names none.
    """

    def __init__(self, artifact: Artifact, *, version: str = "") -> None:
        self.version = version
        self._artifact = artifact
        self.mixture = artifact.mixture
        self.max_new_tokens = artifact.max_new_tokens
        self.models = {model.name: model for model in _models(artifact)}
        _refuse_per_token(self.models.values())
        self.default = next(iter(self.models))
        self.text_tokens(" ")  # the first call may set up the tokenizer, which two threads share from now on
        embeddings: Any = self.mixture.base.model.get_input_embeddings()
        self.vocabulary = int(embeddings.weight.shape[0])
        self.context = self.mixture.base.description.context

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights."""
        return self.mixture.experts

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.mixture.base.tokenizer

    @property
    def multi_turn(self) -> bool:
        """Whether the experts were trained in a format that knows conversations, not one question and its answer."""
        return isinstance(self._artifact.prompt_format, ChatFormat)

    def policy(
        self,
        name: str,
        *,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> Policy:
        """Return the policy of a model, steered, or one that gives the weights asked for.

        Raises:
            PluginError: no such model.
            ConfigError: an unknown expert, a number that is not finite, a negative factor, or steer and weights both.
        """
        if name not in self.models:
            raise PluginError(unknown_name("model", name, self.models))
        return choose(self.models[name].policy, self.experts, steer=steer, weights=weights)

    def chat_tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Return a conversation as the model reads it, see `conversation_tokens`."""
        return conversation_tokens(turns, prompt_format=self._artifact.prompt_format, tokenizer=self.tokenizer)

    def text_tokens(self, text: str) -> list[int]:
        """Return a text as the model reads it, without a prompt format."""
        tokens: list[int] = self.tokenizer(text).input_ids
        return tokens


def _refuse_per_token(models: Iterable[ServedModel]) -> None:
    for model in models:
        if model.policy.per_token:
            raise ServingError(
                f"{model.name!r} of this run routes every token, and answers that are written together are routed once "
                "a prompt; run the recipe with per_token: false for this system, or ask with `mocae chat`"
            )


def _models(artifact: Artifact) -> list[ServedModel]:
    parts, routers = artifact.parts, artifact.parts.routers
    names = {
        "alignx": "the router fitted on outcomes chooses the weights of each prompt",
        "linear": "a router trained on which axis a prompt came from chooses the weights of each prompt",
        "uniform": "every expert has the same weight",
        "sum": "every expert has weight 1",
        "base": "the base model, no expert",
        **{f"expert:{axis}": f"the {axis} expert alone" for axis in parts.experts},
    }
    first = next((name for name in ("alignx", "linear") if name in routers), "uniform")
    ordered = [
        first,
        *(name for name in names if name != first and (name not in ("alignx", "linear") or name in routers)),
    ]
    return [
        ServedModel(name, build_policy(name, parts, **artifact.options.get(name, {})), names[name]) for name in ordered
    ]
