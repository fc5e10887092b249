"""A base model with its experts and a policy, as one model: routing happens inside the pass that reads the prompt."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.bank import ExpertBank, Mode
from mocae.errors import ConfigError
from mocae.models import BaseGenerator, Generated, LoadedBase
from mocae.policies.base import Policy
from mocae.policies.per_prompt import choose
from mocae.policies.routing_pass import RoutingPass
from mocae.policies.steering import Steering

__all__ = ["Mixture"]


class Mixture(BaseGenerator):
    """Generates text with weights that a policy chooses for each prompt.

    *One pass.* The policy reads the base hidden states entering layer l during the prefill and sets the weights for the
    layers above; the KV cache stays on and decoding never routes again. Where an adapter touches a layer below l, the
    first l layers are run once with the experts off (*probe* mode), then the normal pass. Both give the same weights.
    A policy's output calibrators are on while it routes.

    *Threads.* Weights belong to the bank, not to a call: while one thread routes and generates, others wait for it.
    `mocae.serving.Engine` answers many at once.

    Args:
        base: model and tokenizer, the bank attached to the model.
        bank: the experts.
        policy: chooses the weights.
        mode: how weights are put in force, see `ExpertBank.weights`. "auto" merges long answers to one prompt, or to
            prompts that share their weights; in bf16 that rounds otherwise.
        injection: text put in front of every prompt; None for none.
        mixed: whether the weights say something of an answer; give False for one adapter alone.
        on_release: called by `release`, perhaps twice; None: the bank is detached.
    """

    def __init__(
        self,
        base: LoadedBase,
        bank: ExpertBank,
        policy: Policy,
        *,
        mode: Mode = "stacked",
        injection: str | None = None,
        mixed: bool = True,
        on_release: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(base, injection=injection, on_release=on_release or bank.detach)
        self.bank = bank
        self.experts = bank.names
        self.policy = policy
        self.mode: Mode = mode
        self.mixed = mixed

    def using(
        self,
        policy: Policy | None = None,
        *,
        mode: Mode | None = None,
        **words: Mapping[str, float] | None,
    ) -> "Mixture":
        """Return this mixture with another choice of weights, over the same base model and bank; nothing is copied.

        Args:
            policy: in place of this one's.
            mode: in place of this one's.
            **words: of `Steering`: steer, prefer, at_least, at_most, weights.

        Raises:
            ConfigError: see `Steering.of` and `choose`.
        """
        other = copy.copy(self)
        other.policy = choose(policy or self.policy, self.experts, Steering.of(**words))
        other.mode = mode or self.mode
        return other

    def routing(
        self,
        ids: Sequence[str],
        *,
        probe: Mapping[str, Tensor] | None = None,
        copies: int = 1,
        new_tokens: int | None = None,
    ) -> RoutingPass:
        """Return a context in which the next pass over prompts `ids` sets the weights, see `RoutingPass`."""
        return RoutingPass(
            self.bank, self.policy, ids, probe=probe, copies=copies, mode=self.mode, new_tokens=new_tokens
        )

    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> RoutingPass:
        """Return a context in which the first pass, over `inputs`, is routed."""
        return self.routing(ids, probe=inputs)

    def writing(self, alpha: Float[Tensor, "B K"], *, merged: bool = False) -> AbstractContextManager[Any]:
        """Return a context in which the weights of each row are in force, see `ExpertBank.weights`."""
        return self.bank.weights(alpha.to(self.base.model.device), mode="merged" if merged else "stacked")

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> Generated:
        """Return an answer to each prompt, written with its own weights; arguments as in `mocae.models.Generator`.

        Raises:
            ConfigError: see `RoutingPass`; nothing was generated.
        """
        model = self.base.model
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, "attention_mask": mask}
        with self.routing(
            ids if ids is not None else [""] * len(input_ids),
            probe=batch,
            copies=_rows_a_prompt(model, generation),
            new_tokens=_new_tokens(model, generation, input_ids.shape[1]),
        ) as routing:
            out = self.base.generate(**batch, **generation)
        if routing.alpha is None:
            raise ConfigError("the prompts were never read, so nothing was routed; max_new_tokens must be at least 1")
        return Generated.of(out, routing)


def _rows_a_prompt(model: Any, generation: Mapping[str, Any]) -> int:
    """Return how many rows `generate` makes of each prompt: its beams, or its answers where they are sampled."""
    return max(_beams(model, generation), _setting(model, generation, "num_return_sequences"))


def _beams(model: Any, generation: Mapping[str, Any]) -> int:
    return _setting(model, generation, "num_beams")


def _setting(model: Any, generation: Mapping[str, Any], name: str) -> int:
    defaults = generation.get("generation_config") or model.generation_config
    return int(generation.get(name) or getattr(defaults, name, None) or 1)


def _new_tokens(model: Any, generation: Mapping[str, Any], prompt_tokens: int) -> int | None:
    """Return the most tokens `generate` makes, None where nothing says."""
    defaults = generation.get("generation_config") or model.generation_config
    new = generation.get("max_new_tokens") or getattr(defaults, "max_new_tokens", None)
    whole = generation.get("max_length") or getattr(defaults, "max_length", None)
    return new or (max(whole - prompt_tokens, 0) if whole else None)
