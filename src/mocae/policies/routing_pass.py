"""One pass over prompts in which a policy reads, chooses weights and puts them in force."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn

from mocae.bank import ExpertBank, Mode
from mocae.errors import ConfigError
from mocae.experts import Pool, pool_hidden
from mocae.models import StopForward, Trace, at_layer, layer_inputs
from mocae.policies.base import Policy, PromptBatch, Reading

__all__ = ["RoutingPass"]


class RoutingPass(Trace):
    """A context in which the next pass over the prompts sets the weights, kept until the context ends.

    The bank is this thread's until then, and has the weights from before afterwards.

    Args:
        bank: the experts, attached.
        policy: chooses.
        ids: identity of each prompt (`mocae.types.prompt_id`).
        probe: the tokenised prompts, one row each: needed where an expert sits below the layer the policy reads, and
            where the pass is not told a plain attention mask.
        copies: rows of the pass that repeat each prompt (beams, several answers), next to each other.
        mode: how weights are put in force, see `ExpertBank.weights`.
        new_tokens: how many tokens are to be generated, which mode "auto" goes by.

    Raises:
        ConfigError: `probe` is missing where it is needed, or the first pass does not hold the whole prompts.

    Attributes:
        alpha: (B, K), weights in force once the prompts were read; None before.
        sureness: how sure the policy is of each prompt; None too for one that does not say.
    """

    def __init__(
        self,
        bank: ExpertBank,
        policy: Policy,
        ids: Sequence[str],
        *,
        probe: Mapping[str, Tensor] | None = None,
        copies: int = 1,
        mode: Mode = "stacked",
        new_tokens: int | None = None,
    ) -> None:
        self._bank, self._policy, self._ids = bank, policy, ids
        self._probe, self._copies = probe, copies
        self._mode: Mode = mode
        self._new_tokens = new_tokens
        self._model: Any = bank.model

    def __enter__(self) -> "RoutingPass":
        """Route at once where no pass is needed for it, else get ready for the first pass."""
        with ExitStack() as self._stack:
            self._stack.enter_context(self._bank.lock)
            self._stack.callback(self._bank.set_weights, self._bank.alpha)
            if self._policy.output is not None:
                self._stack.enter_context(self._policy.output.attached(self._model))
            self._begin(self._policy.reads)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Put the weights from before back in force."""
        self._stack.__exit__(*error)

    def _begin(self, reading: Reading | None) -> None:
        if reading is None:
            self._put(None)
        elif self._bank.first_layer < reading.layer:
            self._put(self._probed(reading))
        else:
            mask = None if self._probe is None else self._probe["attention_mask"]
            self._bank.set_weights(None)
            self._stack.enter_context(_on_prefill(self._model, reading, mask, self._copies, self._put))

    def _put(self, pooled: Tensor | None) -> None:
        """Put weights chosen for whole prompts in force."""
        rows = self._route(pooled).repeat_interleave(self._copies, dim=0).to(self._model.device)
        self._stack.enter_context(self._bank.weights(rows, mode=self._mode, new_tokens=self._new_tokens))

    def _route(self, pooled: Tensor | None) -> Tensor:
        """Return the weights of the prompts, and note them and how sure the policy is."""
        batch = PromptBatch(self._ids, pooled)
        alpha = self._policy.route(batch)
        self.alpha = alpha.detach().float().cpu()
        self.sureness = self._policy.sureness(batch)
        return alpha

    def _probed(self, reading: Reading) -> Tensor:
        """Return what the base model alone reads in the prompts."""
        if self._probe is None:
            raise ConfigError(
                f"an expert adapts layer {self._bank.first_layer}, below layer {reading.layer} where the router reads: "
                "give the tokenised prompts as `probe`"
            )
        with self._bank.off(), layer_inputs(self._model, reading.layer, stop=True) as collected:
            with torch.no_grad(), suppress(StopForward):
                self._model(**self._probe, use_cache=False)
        return pool_hidden(collected[0], self._probe["attention_mask"], pool=cast(Pool, reading.pool)).cpu()


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
