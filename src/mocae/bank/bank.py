"""The bank: all experts attached to one base model, off, weighed per prompt or per token, or merged."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank.adapters import LoraWeights, load_peft
from mocae.bank.build import bank_linears, stacks
from mocae.bank.gates import Gates
from mocae.bank.linear import BankLinear, Stack
from mocae.bank.merged import (
    LONG_ANSWER_TOKENS,
    MergedCache,
    Mode,
    has_room,
    refuse_unmergeable,
    same_for_all,
    swapped,
    why_unmergeable,
)
from mocae.errors import ConfigError
from mocae.models.layers import decoder_layers, linear_groups

__all__ = ["ExpertBank"]


class ExpertBank:
    """Experts on a base model, mixed exactly: an adapted linear computes W x + sum_k alpha_k scaling_k B_k A_k x.

    Made by `attach`; starts with all experts off. While it is attached the model is used as always (`forward`,
    `generate`, with or without KV cache), and `set_weights` says how much of each expert it holds. Weights are read
    whenever a linear runs, so they may be set in the middle of a pass: a forward pre-hook on a decoder layer that
    calls `set_weights` routes everything above it, per prompt, per token or per layer, in prefill and in each decoding
    step. One bank serves one thread at a time: whoever shares it holds its `lock` while weights are in force.

    Under `torch.no_grad()` linears with the same input share one product. With gradients on they run one by one, and a
    gradient flows to `alpha`; the base model's `requires_grad` is left to the caller.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        *,
        gates: Gates,
        linears: Sequence[BankLinear],
        stacks: Sequence[Stack],
    ) -> None:
        self.model = model
        self.lock = threading.RLock()
        self.names = tuple(names)
        self._gates = gates
        self._linears = list(linears)
        self._stacks = list(stacks)
        self._attached = True
        self._merged = False
        self._kept = MergedCache()

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        experts: Mapping[str, LoraWeights | str | Path],
        *,
        fused: bool = True,
    ) -> "ExpertBank":
        """Return a bank on `model`, experts off; the model changes only in place and `detach` undoes it bit for bit.

        Experts are cast to the dtype of the linear they sit on. Fused, W and A are copied into one tensor group by
        group (each group's old weight is freed), so memory grows by the experts and never by a second model.

        Args:
            model: base model with its weights loaded. Quantised linears work, unfused.
            experts: name -> expert or its PEFT folder; the order is the order of weights.
            fused: one product for linears with the same input; costs one traced forward pass over one token.

        Raises:
            ConfigError: no experts, or a bank is attached already.
            ModelMismatchError: an expert does not fit the model (module or shape).
            ArtifactError: an adapter folder cannot be read.
        """
        if not experts:
            raise ConfigError("a bank needs at least one expert, received none; give name -> adapter folder")
        if any(isinstance(vars(m).get("forward"), BankLinear) for m in model.modules()):
            raise ConfigError(
                f"a bank is already attached to this {type(model).__name__}; detach it, then attach all experts at once"
            )
        loaded = {name: e if isinstance(e, LoraWeights) else load_peft(e, name=name) for name, e in experts.items()}
        gates = Gates(len(loaded))
        linears = bank_linears(model, loaded, gates=gates)
        groups = linear_groups(model, names={m.name for m in linears}) if fused else []
        bank = cls(model, list(loaded), gates=gates, linears=linears, stacks=[])
        try:
            for stack in stacks(linears, groups, gates=gates):
                bank._stacks.append(stack)
            for member in linears:
                member.linear.forward = member  # type: ignore[method-assign]
        except BaseException:
            bank.detach()
            raise
        return bank

    def detach(self) -> None:
        """Take the experts off: the model's modules, forwards and values are as before `attach`. Twice is fine.

        Raises:
            ConfigError: inside `merged`.
        """
        if not self._attached:
            return
        if self._merged:
            raise ConfigError("a bank cannot be detached inside merged(); leave it first")
        self._attached = False
        self._kept.shrink(0)
        self._gates.set(None)
        for member in self._linears:
            if vars(member.linear).get("forward") is member:
                _restore_forward(member)
        for stack in self._stacks:
            stack.release()

    def set_weights(self, alpha: Float[Tensor, "..."] | None) -> None:
        """Put weights in force until the next call.

        Args:
            alpha: (K,) the same for every row; (B, K) one row a prompt, kept while its answer is decoded; (B, T, K)
                one a token, for passes of exactly T tokens; None = base model. Any finite value, negative too.
                All zeros is the base model, bit for bit.

        Raises:
            ConfigError: wrong number of experts or dimensions, values that are not finite, bank detached or merged.
                A wrong batch or token count is raised by the forward pass that meets it.
        """
        self._refuse_detached()
        if alpha is not None:
            self._refuse_bad(alpha, dims=(1, 2, 3))
            if self._merged:
                raise ConfigError("weights cannot be set inside merged(): they are in the base weights; leave it first")
        self._put(alpha)

    @property
    def alpha(self) -> Tensor | None:
        """Weights in force, None = base model."""
        return self._gates.alpha

    @contextmanager
    def weights(
        self, alpha: Float[Tensor, "..."] | None, *, mode: Mode = "stacked", new_tokens: int | None = None
    ) -> Iterator["ExpertBank"]:
        """Return a context in which `alpha` is in force; the weights from before come back after it.

        Args:
            alpha: see `set_weights`.
            mode: "stacked", "merged" (see `merged`; one mixture for all rows), or "auto": merged where that is faster,
                see `merging_pays`.
            new_tokens: how many tokens the context is meant for, which "auto" goes by.

        Raises:
            ConfigError: see `set_weights`; rows that differ cannot be merged.
            ModelMismatchError: "merged", and a weight is quantised or tied to another module.
        """
        if alpha is not None and mode != "stacked":
            self._refuse_detached()
            self._refuse_bad(alpha, dims=(1, 2, 3))
            one = same_for_all(alpha)
            if mode == "merged" and one is None:
                raise ConfigError(
                    "rows with different weights cannot be merged into one model; give equal rows, or mode='stacked'"
                )
            if one is not None and (mode == "merged" or self.merging_pays(one, new_tokens)):
                with self.merged(one):
                    yield self
                return
        before = self._gates.alpha
        self.set_weights(alpha)
        try:
            yield self
        finally:
            if self._attached:
                self._put(before)

    @contextmanager
    def off(self) -> Iterator["ExpertBank"]:
        """Return a context in which the model is the base model, bit for bit.

        Raises:
            ConfigError: the bank is detached.
        """
        with self.weights(None):
            yield self

    @contextmanager
    def merged(self, alpha: Float[Tensor, " K"]) -> Iterator[nn.Module]:
        """Return a context in which the base weights hold the constant mixture, so the model runs at its own speed.

        Merged weights are summed in fp32 and cast; after the context the original tensors are put back, not computed
        back. State dict and `save_pretrained` see the merged model. Holds a second copy of the adapted weights. May be
        entered in the middle of a pass: the linears that run from then on are merged.

        Raises:
            ConfigError: wrong number of experts, not finite, detached, or already merged.
            ModelMismatchError: a weight is quantised or tied to another module, so nothing can be merged into it.
        """
        self._refuse_detached()
        self._refuse_bad(alpha, dims=(1,))
        if self._merged:
            raise ConfigError("merged() is already in force; leave it before merging other weights")
        mixture = self._mixture(alpha.detach())
        with self.off(), swapped(mixture):
            self._merged = True
            try:
                yield self.model
            finally:
                self._merged = False

    def keep_merged(self, max_bytes: int) -> None:
        """Keep the merged weights of the mixtures used last, up to so many bytes, so that merging them again is free.

        Starts with 0. While mixtures are kept the base weights must not change.

        Raises:
            ConfigError: negative.
        """
        if max_bytes < 0:
            raise ConfigError(f"{max_bytes} bytes of merged weights cannot be kept; give 0 or more")
        self._kept.max_bytes = max_bytes
        self._kept.shrink(max_bytes)

    def merging_pays(self, alpha: Float[Tensor, " K"], new_tokens: int | None) -> bool:
        """Return whether one mixture is answered faster merged: it is kept, or the answer is long and memory is free.

        Never where nothing can be merged (a quantised or tied weight), inside `merged`, or for weights that are all 0.
        """
        if self._merged or not alpha.any():
            return False
        if alpha in self._kept:
            return True
        if new_tokens is None or new_tokens < LONG_ANSWER_TOKENS or why_unmergeable(self.model, self._by_name()):
            return False
        return has_room(self._merged_bytes(), self._linears[0].linear.weight.device)

    @property
    def merged_bytes(self) -> int:
        """Memory that the merged weights of one mixture take.

        Raises:
            ModelMismatchError: nothing can be merged into some linear.
        """
        refuse_unmergeable(self.model, self._by_name())
        return self._merged_bytes()

    def _by_name(self) -> dict[str, nn.Linear]:
        return {member.name: member.linear for member in self._linears}

    def _merged_bytes(self) -> int:
        weights = [member.linear.weight for member in self._linears]
        return sum(weight.numel() * weight.element_size() for weight in weights)

    def _mixture(self, alpha: Float[Tensor, " K"]) -> dict[nn.Linear, nn.Parameter]:
        """Return the merged weight of each linear that some expert in use adapts."""
        kept = self._kept.get(alpha)
        if kept is not None:
            return kept
        refuse_unmergeable(self.model, self._by_name())
        mixture = {
            member.linear: nn.Parameter(member.merged(alpha), requires_grad=member.linear.weight.requires_grad)
            for member in self._linears
            if any(alpha[k] for k in member.layout.experts)
        }
        self._kept.put(alpha, mixture)
        return mixture

    @property
    def first_layer(self) -> int:
        """Index of the lowest decoder layer with an expert on it; the number of layers when all sit above them.

        Raises:
            ModelMismatchError: the decoder layers are not found.
        """
        layers = decoder_layers(self.model)
        with_experts = (i for i, layer in enumerate(layers) if any(m in self.adapted for m in layer.modules()))
        return next(with_experts, len(layers))

    @property
    def adapted(self) -> frozenset[nn.Module]:
        """The linears of the model that carry experts."""
        return frozenset(member.linear for member in self._linears)

    @property
    def n_parameters(self) -> int:
        """Number of values in all experts."""
        return sum(member.A.numel() + member.B.numel() for member in self._linears)

    @property
    def n_bytes(self) -> int:
        """Memory the experts add to the base model."""
        return sum(t.numel() * t.element_size() for member in self._linears for t in (member.A, member.B))

    def tensors(self) -> Iterator[Tensor]:
        """Yield the stacked factors of all experts; fused, those of A share memory with the base weights."""
        for member in self._linears:
            yield from (member.A, member.B)

    def _put(self, alpha: Tensor | None) -> None:
        for stack in self._stacks:
            stack.forget()  # a product that was made under other weights
        self._gates.set(alpha)

    def _refuse_detached(self) -> None:
        if not self._attached:
            raise ConfigError("this bank is detached from its model; attach the experts again with ExpertBank.attach")

    def _refuse_bad(self, alpha: Tensor, *, dims: tuple[int, ...]) -> None:
        shapes = {1: "(K,)", 2: "(B, K)", 3: "(B, T, K)"}
        if alpha.dim() not in dims or alpha.shape[-1] != len(self.names) or not alpha.is_floating_point():
            raise ConfigError(
                f"weights have shape {tuple(alpha.shape)} and {alpha.dtype}, the bank holds K = {len(self.names)} "
                f"experts ({', '.join(self.names)}); give floats of shape {' or '.join(shapes[d] for d in dims)}"
            )
        finite = torch.isfinite(alpha.detach())
        if not finite.all():
            bad = finite.logical_not().nonzero()[0].tolist()
            raise ConfigError(
                f"the weight at {bad} is {alpha.detach()[tuple(bad)].item()} (expert {self.names[bad[-1]]!r}); "
                "weights must be finite"
            )


def _restore_forward(member: BankLinear) -> None:
    """Undo the assignment of `forward`: a linear that had no `forward` of its own gets its class's back."""
    del member.linear.forward
    if member.original != member.linear.forward:
        member.linear.forward = member.original  # type: ignore[method-assign, assignment]
