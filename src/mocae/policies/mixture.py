"""A base model with its experts and a policy, as one model: routing happens inside the pass that reads the prompt."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank import ExpertBank, Mode
from mocae.errors import ConfigError
from mocae.experts import Pool, pool_hidden
from mocae.models import LoadedBase, StopForward, at_layer, layer_inputs
from mocae.policies.base import FittedPolicy, Policy, PromptBatch, Reading, Sureness, route_steered, weights_vector
from mocae.policies.per_token import on_every_pass

__all__ = ["Generator", "Mixture", "PlainModel", "Routed", "RoutingTrace"]


@runtime_checkable
class Generator(Protocol):
    """What answers prompts: a base model, a mixture, or anything that generates like them.

    Attributes:
        base: model and tokenizer.
        experts: names of the experts, in the order of weights; empty where there are none.
    """

    @property
    def base(self) -> LoadedBase: ...  # noqa: D102 - described above

    @property
    def experts(self) -> tuple[str, ...]: ...  # noqa: D102 - described above

    def generate_traced(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> tuple[Tensor, Float[Tensor, "B K"]]:
        """Return the generated ids, prompts included, and the weight each expert had for each prompt."""
        ...


class PlainModel:
    """A model without experts as a `Generator`."""

    experts: tuple[str, ...] = ()

    def __init__(self, base: LoadedBase) -> None:
        self.base = base

    @torch.no_grad()
    def generate_traced(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        **generation: Any,
    ) -> tuple[Tensor, Float[Tensor, "B K"]]:
        """Return what Hugging Face's `generate` returns, and weights of no expert, (B, 0)."""
        out = self.base.generate(input_ids, attention_mask=attention_mask, **generation)
        return out, torch.zeros(len(input_ids), 0)


class RoutingTrace:
    """What the policy did, once the prompts were read; None before.

    Attributes:
        alpha: (B, K), weights in force; routed by token, those at the last token of each prompt.
        sureness: how sure the router is of each prompt; None too for a policy that does not say, and where steering or
            given weights made another choice.
    """

    def __init__(self) -> None:
        self.alpha: Float[Tensor, "B K"] | None = None
        self.sureness: Sureness | None = None


class Routed(NamedTuple):
    """Generated ids, prompts included, with the weights of each prompt and how sure they are (`RoutingTrace`)."""

    ids: Tensor
    weights: Float[Tensor, "B K"]
    sureness: Sureness | None


class Mixture:
    """Generates text with weights that a policy chooses for each prompt.

    *One pass.* The policy reads the base hidden states entering layer l during the prefill and sets the weights for the
    layers above; the KV cache stays on and decoding never routes again. Where an adapter touches a layer below l, the
    first l layers are run once with the experts off (*probe* mode), then the normal pass. Both give the same weights.
    A policy that routes *per token* reads in every pass, prefill and decoding, and weighs each token by what it would
    have read there if the prompt had ended; it has no probe mode. A policy's output calibrators are on while it routes.

    *Threads.* Weights belong to the model, not to a call: while one thread routes and generates, others wait for it.
    `mocae.serving.Engine` answers many at once.

    Args:
        base: model and tokenizer, the bank attached to the model.
        bank: the experts.
        policy: used where a call names none.
        mode: how weights are put in force where a call does not say, see `ExpertBank.weights`. "auto" merges long
            answers to one prompt, or to prompts that share their weights; in bf16 that rounds otherwise.
    """

    def __init__(self, base: LoadedBase, bank: ExpertBank, policy: Policy, *, mode: Mode = "stacked") -> None:
        self.base = base
        self.bank = bank
        self.policy = policy
        self.mode: Mode = mode
        self._one_at_a_time = threading.RLock()

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the experts, in the order of weights."""
        return self.bank.names

    @contextmanager
    def routing(
        self,
        ids: Sequence[str],
        *,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        probe: Mapping[str, Tensor] | None = None,
        copies: int = 1,
        mode: Mode | None = None,
        new_tokens: int | None = None,
    ) -> Iterator[RoutingTrace]:
        """Return a context in which the next pass over prompts `ids` sets the weights, kept until the context ends.

        Args:
            ids: identity of each prompt (`mocae.types.prompt_id`).
            policy: in place of the mixture's own.
            steer: axis -> factor, multiplies the policy's weights before normalising.
            weights: expert -> weight, replaces the policy; negative allowed.
            probe: the tokenised prompts, one row each: needed in probe mode, and where the pass is not told a plain
                attention mask.
            copies: rows of the pass that repeat each prompt (beams, several answers), next to each other.
            mode: in place of the mixture's own.
            new_tokens: how many tokens are to be generated, which mode "auto" goes by.

        Raises:
            ConfigError: an unknown expert, a factor that is not finite or negative, both steer and weights, `probe`
                missing where it is needed, or a first pass that does not hold the whole prompts.
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

        fitted = chosen if isinstance(chosen, FittedPolicy) and weights is None else None

        def route(batch: PromptBatch) -> Tensor:
            if weights is not None:
                return weights_vector(weights, names).expand(len(batch.ids), -1)
            return route_steered(chosen, batch, factor)

        def put(pooled: Tensor | None) -> None:
            batch = PromptBatch(ids, pooled)
            alpha = note(batch)
            rows = alpha.repeat_interleave(copies, dim=0).to(self.base.model.device)
            stack.enter_context(self.bank.weights(rows, mode=mode or self.mode, new_tokens=new_tokens))

        def put_tokens(pooled: Tensor, last: Tensor | None) -> None:
            if last is not None:
                note(PromptBatch(ids, last[::copies]))
            rows, n_tokens, width = pooled.shape
            each = [name for name in ids for _ in range(copies * n_tokens)]
            alpha = route(PromptBatch(each, pooled.reshape(rows * n_tokens, width)))
            self.bank.set_weights(alpha.reshape(rows, n_tokens, -1).to(self.base.model.device))

        def note(batch: PromptBatch) -> Tensor:
            alpha = route(batch)
            trace.alpha = alpha.detach().float().cpu()
            if fitted is not None and factor is None:
                trace.sureness = fitted.sureness(batch)
            return alpha

        reading = chosen.reads if weights is None else None
        mask = None if probe is None else probe["attention_mask"]
        with self._one_at_a_time, ExitStack() as stack:
            stack.callback(self.bank.set_weights, self.bank.alpha)
            if fitted is not None and fitted.output is not None:
                stack.enter_context(fitted.output.attached(self.base.model))
            if reading is None:
                put(None)
            elif fitted is not None and fitted.per_token:
                self._refuse_low_experts(reading)
                self.bank.set_weights(None)
                stack.enter_context(on_every_pass(self.base.model, reading, mask, copies, put_tokens))
            elif self.bank.first_layer < reading.layer:
                put(self._probe(probe, reading))
            else:
                self.bank.set_weights(None)
                stack.enter_context(_on_prefill(self.base.model, reading, mask, copies, put))
            yield trace

    def _refuse_low_experts(self, reading: Reading) -> None:
        if self.bank.first_layer < reading.layer:
            raise ConfigError(
                f"an expert adapts layer {self.bank.first_layer}, below layer {reading.layer} where the router reads, "
                "so it cannot route per token in the same pass; set per_token to false, or experts.from_layer to where "
                "it reads"
            )

    def _probe(self, batch: Mapping[str, Tensor] | None, reading: Reading) -> Tensor:
        if batch is None:
            raise ConfigError(
                f"an expert adapts layer {self.bank.first_layer}, below layer {reading.layer} where the router reads: "
                "give the tokenised prompts as `probe`"
            )
        with self.bank.off(), layer_inputs(self.base.model, reading.layer, stop=True) as collected:
            with torch.no_grad(), suppress(StopForward):
                self.base.model(**batch, use_cache=False)
        return pool_hidden(collected[0], batch["attention_mask"], pool=cast(Pool, reading.pool)).cpu()

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
        mode: Mode | None = None,
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
            mode: see `routing`.
            **generation: passed on to `generate`.

        Raises:
            ConfigError: see `routing`.
        """
        return self.generate_traced(
            input_ids,
            attention_mask=attention_mask,
            ids=ids,
            policy=policy,
            steer=steer,
            weights=weights,
            mode=mode,
            **generation,
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
        mode: Mode | None = None,
        **generation: Any,
    ) -> tuple[Tensor, Float[Tensor, "B K"]]:
        """Return the generated ids and the weights of each prompt; arguments and errors as in `generate`."""
        routed = self.generate_routed(
            input_ids,
            attention_mask=attention_mask,
            ids=ids,
            policy=policy,
            steer=steer,
            weights=weights,
            mode=mode,
            **generation,
        )
        return routed.ids, routed.weights

    @torch.no_grad()
    def generate_routed(
        self,
        input_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        ids: Sequence[str] | None = None,
        policy: Policy | None = None,
        steer: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        mode: Mode | None = None,
        **generation: Any,
    ) -> Routed:
        """Return ids, weights and sureness of each prompt; arguments and errors as in `generate`."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        batch = {"input_ids": input_ids, "attention_mask": mask}
        names = ids if ids is not None else [""] * len(input_ids)
        copies = _rows_a_prompt(self.base.model, generation)
        chosen = policy or self.policy
        if isinstance(chosen, FittedPolicy) and chosen.per_token and _beams(self.base.model, generation) > 1:
            raise ConfigError("per-token routing cannot follow beams, which change places; set num_beams to 1")
        with self.routing(
            names,
            policy=policy,
            steer=steer,
            weights=weights,
            probe=batch,
            copies=copies,
            mode=mode,
            new_tokens=_new_tokens(self.base.model, generation, input_ids.shape[1]),
        ) as trace:
            out = self.base.generate(**batch, **generation)
        if trace.alpha is None:
            raise ConfigError("the prompts were never read, so nothing was routed; max_new_tokens must be at least 1")
        return Routed(out, trace.alpha, trace.sureness)

    def detach(self) -> None:
        """Take the experts off the base model."""
        self.bank.detach()


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


@contextmanager
def _on_prefill(
    model: nn.Module, reading: Reading, mask: Tensor | None, copies: int, put: Callable[[Tensor], None]
) -> Iterator[None]:
    """Call `put` with the pooled input of the reading layer, one row a prompt, in the first pass only.

    Args:
        model: the base model.
        reading: where to read.
        mask: which tokens of the prompts are no padding; None: as the pass itself is told.
        copies: rows of the pass that repeat one prompt.
        put: routes.
    """
    told: list[Any] = [] if mask is None else [mask]
    done = False

    def keep_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not told:
            given = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
            told.append(given[::copies] if isinstance(given, Tensor) else given)

    def see(hidden: Tensor) -> None:
        nonlocal done
        if done:
            return
        done = True
        states, seen = hidden[::copies], told[0]
        if seen is None:
            seen = torch.ones(states.shape[:2], dtype=torch.long)
        if not isinstance(seen, Tensor) or seen.shape != states.shape[:2]:
            found = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
            raise ConfigError(
                f"the first pass reads {tuple(states.shape[:2])} (prompts, tokens), the prompts' mask is "
                f"{found}; routing needs whole prompts in one pass (no prefill_chunk_size, no cache from "
                "before) and a mask of (prompts, tokens), given as `probe`"
            )
        put(pool_hidden(states, seen.to(states.device), pool=cast(Pool, reading.pool)).cpu())

    handle = model.register_forward_pre_hook(keep_mask, with_kwargs=True)
    try:
        with at_layer(model, reading.layer, see):
            yield
    finally:
        handle.remove()
