"""What is served: a finished run as names of models, each of them a system of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from mocae.errors import ConfigError, PluginError, unknown_name
from mocae.models import BaseGenerator, LoadedBase
from mocae.policies import Mixture, Policy, Steering, choose
from mocae.prompts import ChatFormat, PromptFormat
from mocae.serving.conversation import Turn, conversation_tokens

__all__ = ["OpenedRun", "Served"]


@runtime_checkable
class OpenedRun(Protocol):
    """What serving needs of a finished run; `mocae.pipelines.opened.Artifact` is one.

    Attributes:
        base: its base model.
        axes: names of the experts, in the order of weights.
        prompt_format: how prompts are written.
        max_new_tokens: length of an answer when a request names none.
    """

    base: LoadedBase
    axes: tuple[str, ...]
    prompt_format: PromptFormat
    max_new_tokens: int

    @property
    def about(self) -> Mapping[str, str]: ...  # noqa: D102 - name of each system -> one line, the default first

    def shared_mixture(self) -> Mixture: ...  # noqa: D102 - the bank of experts, which systems over it share

    def over_the_bank(self, name: str) -> bool: ...  # noqa: D102 - whether a system is a policy over it

    def is_loaded(self, name: str) -> bool: ...  # noqa: D102 - whether `generator` returns at once

    def generator(self, name: str) -> Any: ...  # noqa: D102 - the model of a system, loaded at the first call


class Served:
    """The models of a finished run, and how requests become tokens and policies.

    Args:
        artifact: the run.
        version: of this package, told in responses.
        first: name of the system that is listed first; None: the best router.

    Attributes:
        models: name -> one line for people, the default first.
        vocabulary: number of tokens.
        context: tokens the model can read and write together.
        max_new_tokens: length of an answer when a request names none.
    """

    def __init__(self, artifact: OpenedRun, *, version: str = "", first: str | None = None) -> None:
        self.version = version
        self._artifact = artifact
        self.mixture = artifact.shared_mixture()
        self.max_new_tokens = artifact.max_new_tokens
        self.models = dict(sorted(artifact.about.items(), key=lambda item: item[0] != first))
        self.text_tokens(" ")  # the first call may set up the tokenizer, which two threads share from now on
        embeddings: Any = artifact.base.model.get_input_embeddings()
        self.vocabulary = int(embeddings.weight.shape[0])
        self.context = artifact.base.description.context

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights."""
        return self._artifact.axes

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self._artifact.base.tokenizer

    @property
    def multi_turn(self) -> bool:
        """Whether the experts were trained in a format that knows conversations, not one question and its answer."""
        return isinstance(self._artifact.prompt_format, ChatFormat)

    def lane(self, name: str) -> str:
        """Return which engine answers for a model: "" for those over the bank of experts, else its own name.

        Raises:
            PluginError: no such model.
        """
        if name not in self.models:
            raise PluginError(unknown_name("model", name, self.models))
        return "" if self._artifact.over_the_bank(name) else name

    def is_loaded(self, name: str) -> bool:
        """Return whether `generator` returns at once."""
        return self._artifact.is_loaded(name)

    def generator(self, name: str) -> BaseGenerator:
        """Return the model behind a name, loaded at the first call, which can take seconds.

        Raises:
            MocaeError: its files are damaged or do not fit.
        """
        model: BaseGenerator = self._artifact.generator(name)
        return model

    def policy(
        self,
        name: str,
        steering: Steering | None = None,
    ) -> Policy | None:
        """Return the policy of a model, steered, or one that gives the weights asked for; None: it has none.

        Raises:
            PluginError: no such model.
            ConfigError: an unknown expert, a preference for a policy without logits, or steering for a model without
                weights.
        """
        if self.lane(name):
            if steering is not None and steering.words:
                raise ConfigError(
                    f"model {name!r} has no weights that could be steered or given; leave them out, or ask for a model "
                    f"over the bank of experts, such as {next(m for m in self.models if not self.lane(m))!r}"
                )
            return None
        model = self.generator(name)
        assert isinstance(model, Mixture)
        return choose(model.policy, self.experts, steering)

    def chat_tokens(self, turns: Sequence[Turn], *, model: str) -> list[int]:
        """Return a conversation as a model reads it, see `conversation_tokens`."""
        injection = self.generator(model).injection if model in self.models and self.lane(model) else None
        return conversation_tokens(
            turns, prompt_format=self._artifact.prompt_format, tokenizer=self.tokenizer, injection=injection
        )

    def text_tokens(self, text: str) -> list[int]:
        """Return a text as the model reads it, without a prompt format."""
        tokens: list[int] = self.tokenizer(text).input_ids
        return tokens
