"""TrinityX as a model: every feed-forward block of the upper layers routes each token to the experts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mocae.bank import ExpertBank
from mocae.errors import ModelMismatchError
from mocae.models import BaseGenerator, LoadedBase, Trace, decoder_layers, feed_forward
from mocae.trinityx.router import TrinityXRouter

__all__ = ["TrinityXMixture", "feed_forward_blocks", "routed"]


def feed_forward_blocks(bank: ExpertBank) -> dict[int, nn.Module]:
    """Return the block whose linears the experts adapt, by decoder layer.

    Raises:
        ModelMismatchError: an expert sits outside of the feed-forward block (on attention).
    """
    names = {module: name for name, module in bank.model.named_modules()}
    blocks: dict[int, nn.Module] = {}
    for index, layer in enumerate(decoder_layers(bank.model)):
        adapted = [module for module in layer.modules() if module in bank.adapted]
        if not adapted:
            continue
        block = feed_forward(layer)
        inside = set(block.modules())
        outside = sorted({names[module].rpartition(".")[0] for module in adapted if module not in inside})
        if outside:
            raise ModelMismatchError(
                f"TrinityX routes inside feed-forward blocks, but layer {index} is adapted in {', '.join(outside)}; "
                f"train its experts with target_modules of {names[block]} alone"
            )
        blocks[index] = block
    return blocks


@contextmanager
def routed(bank: ExpertBank, router: TrinityXRouter) -> Iterator[list[Tensor]]:
    """Return a context in which each pass routes every token; yields the last pass's alphas, one (B, T, K) a layer.

    Weights are put in force right before a block runs, so each block has its own.
    """
    seen: list[Tensor] = []
    handles = []
    blocks = feed_forward_blocks(bank)
    if set(router.layers) != set(blocks):
        raise ModelMismatchError(f"the router has layers {router.layers}, the experts adapt {tuple(blocks)}")
    first = min(blocks)
    dtype = next(bank.model.parameters()).dtype

    def before(layer: int) -> Any:
        def put(_: nn.Module, args: tuple[Any, ...]) -> None:
            if layer == first:
                seen.clear()
            alpha = router.alpha(args[0], layer)
            seen.append(alpha)
            bank.set_weights(router.fuse(alpha).to(dtype))

        return put

    def after(layer: int) -> Any:
        return lambda _module, _args, output: router.renormalise(output, layer)

    for layer, block in blocks.items():
        handles.append(block.register_forward_pre_hook(before(layer)))
        if router.gain is not None:
            handles.append(block.register_forward_hook(after(layer)))
    outside = bank.alpha
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        bank.set_weights(outside)


class TrinityXMixture(BaseGenerator):
    """Generates text with experts mixed per token in every feed-forward block; the KV cache stays on.

    Args:
        base: model and tokenizer, the bank attached to the model.
        bank: experts in feed-forward blocks alone.
        router: trained.
        on_release: called by `release`, perhaps twice; None: the bank is detached.

    Raises:
        ModelMismatchError: the router was trained for other experts.
    """

    each_token = True

    def __init__(
        self,
        base: LoadedBase,
        bank: ExpertBank,
        router: TrinityXRouter,
        *,
        on_release: Callable[[], object] | None = None,
    ) -> None:
        if router.experts != bank.names:
            raise ModelMismatchError(f"the router knows experts {router.experts}, the bank holds {bank.names}")
        super().__init__(base, on_release=on_release or bank.detach)
        self.bank = bank
        self.experts = bank.names
        self.router = router.to(base.model.device)

    @contextmanager
    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> Iterator[Trace]:
        """Return a context in which each pass routes every token, see `routed`.

        What is kept of the prompts is the mean weight of each expert over layers and tokens.
        """
        trace = Trace()
        with self.bank.lock, routed(self.bank, self.router) as seen:

            def keep(*_: Any) -> None:
                if trace.alpha is None:
                    fused = torch.stack([self.router.fuse(alpha) for alpha in seen]).mean(0)
                    real = inputs["attention_mask"][..., None].to(fused.dtype)
                    trace.alpha = ((fused * real).sum(1) / real.sum(1)).detach().cpu()

            handle = self.base.model.register_forward_hook(keep)
            try:
                yield trace
            finally:
                handle.remove()

    @contextmanager
    def writing(self, alpha: Float[Tensor, "B K"], *, merged: bool = False) -> Iterator[None]:
        """Return a context in which one pass routes every token."""
        with self.bank.lock, routed(self.bank, self.router):
            yield
