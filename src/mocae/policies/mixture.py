"""A base model with its experts and a policy, as one model: routing happens inside the pass that reads the prompt."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank import ExpertBank
from mocae.errors import ConfigError
from mocae.experts import StopForward, layer_inputs, pool_hidden
from mocae.models import LoadedBase, decoder_layers
from mocae.policies.base import Policy, PromptBatch, Reading, shape_weights, weights_vector

__all__ = ["Mixture", "RoutingTrace"]


class RoutingTrace:
    """The weights in force, (B, K), once the prompts were read; None before."""

    def __init__(self) -> None:
        self.alpha: Tensor | None = None


class Mixture:
    """Generates text with weights that a policy chooses for each prompt.

    *One pass.* The policy reads the base hidden states entering layer l during the prefill and sets the weights for the
    layers above; the KV cache stays on and decoding never routes again. Where an adapter touches a layer below l, the
    first l layers are run once with the experts off (*probe* mode), then the normal pass.

    Args:
        base: model and tokenizer, the bank attached to the model.
        bank: the experts.
        policy: used where a call names none.
    """

    def __init__(self, base: LoadedBase, bank: ExpertBank, policy: Policy) -> None:
        self.base = base
        self.bank = bank
        self.policy = policy

    @contextmanager
    def routing(
        self,
        ids: Sequence[str],
        *,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        probe: Mapping[str, Tensor] | None = None,
    ) -> Iterator[RoutingTrace]:
        """Return a context in which the next pass over prompts `ids` sets the weights, kept until the context ends.

        Args:
            ids: identity of each row's prompt (`mocae.types.prompt_id`).
            policy: in place of the mixture's own.
            steer: axis -> factor, multiplies the policy's weights before normalising.
            weights: expert -> weight, replaces the policy; negative allowed.
            probe: the tokenised batch, used only in probe mode.

        Raises:
            ConfigError: an unknown expert, a factor that is not finite or negative, or both steer and weights.
        """
        if steer and weights is not None:
            raise ConfigError("steer multiplies what the policy chooses, weights replaces it: give one of them")
        names = self.bank.names
        factor = None
        if steer:
            factor = weights_vector({**dict.fromkeys(names, 1.0), **steer}, names)
            if (factor < 0).any():
                raise ConfigError(f"steer factors must be at least 0, got {dict(steer)}; use weights for negative ones")
        chosen = policy or self.policy
        trace = RoutingTrace()

        def put(pooled: Tensor | None) -> None:
            if weights is not None:
                alpha = weights_vector(weights, names).expand(len(ids), -1)
            else:
                alpha = shape_weights(chosen.route(PromptBatch(ids, pooled)), steer=factor)
            trace.alpha = alpha.detach().float().cpu()
            self.bank.set_weights(alpha.to(self.base.model.device))

        before = self.bank.alpha
        reading = chosen.reads if weights is None else None
        try:
            if reading is None:
                put(None)
                yield trace
            elif self.bank.first_layer < reading.layer:
                put(self._probe(probe, reading))
                yield trace
            else:
                self.bank.set_weights(None)
                with _on_prefill(self.base.model, reading, put):
                    yield trace
        finally:
            self.bank.set_weights(before)

    def _probe(self, batch: Mapping[str, Tensor] | None, reading: Reading) -> Tensor:
        if batch is None:
            raise ConfigError(
                f"an expert adapts layer {self.bank.first_layer}, below layer {reading.layer} where the router reads: "
                "give the tokenised prompts as `probe`"
            )
        with self.bank.off(), torch.no_grad(), layer_inputs(self.base.model, reading.layer, stop=True) as collected:
            try:
                self.base.model(**batch, use_cache=False)
            except StopForward:
                pass
        return pool_hidden(collected[0], batch["attention_mask"], pool=_pool(reading))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        **generation: Any,
    ) -> Tensor:
        """Return what Hugging Face's `generate` returns, every prompt answered with its own weights.

        Args:
            input_ids: (B, T), padded on the left.
            attention_mask: (B, T); None: no padding.
            ids: identities of the prompts, needed by the oracle only.
            policy: see `routing`.
            steer: see `routing`.
            weights: see `routing`.
            **generation: passed on to `generate`.
        """
        return self.generate_traced(
            input_ids, attention_mask=attention_mask, ids=ids, policy=policy, steer=steer, weights=weights, **generation
        )[0]

    @torch.no_grad()
    def generate_traced(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        **generation: Any,
    ) -> tuple[Tensor, Float[Tensor, "B K"]]:
        """Return the generated ids and the weights of each prompt."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, "attention_mask": mask}
        names = ids if ids is not None else [""] * len(input_ids)
        generation.setdefault("pad_token_id", self.base.tokenizer.pad_token_id)
        with self.routing(names, policy=policy, steer=steer, weights=weights, probe=batch) as trace:
            out = self.base.model.generate(**batch, **generation)
        if trace.alpha is None:
            raise ConfigError("the prompts were never read, so nothing was routed; max_new_tokens must be at least 1")
        return out, trace.alpha

    def detach(self) -> None:
        """Take the experts off the base model."""
        self.bank.detach()


def _pool(reading: Reading) -> Any:
    return reading.pool


@contextmanager
def _on_prefill(model: nn.Module, reading: Reading, put: Any) -> Iterator[None]:
    """Call `put` with the pooled input of the reading layer, in the first pass only."""
    seen: dict[str, Any] = {}

    def keep_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "done" not in seen:
            seen["mask"] = kwargs.get("attention_mask")

    def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if "done" in seen:
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        mask = seen.get("mask")
        if mask is None or mask.dim() != 2:
            mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        seen["done"] = True
        put(pool_hidden(hidden, mask, pool=_pool(reading)).cpu())

    handles = [
        model.register_forward_pre_hook(keep_mask, with_kwargs=True),
        decoder_layers(model)[reading.layer].register_forward_pre_hook(read, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
