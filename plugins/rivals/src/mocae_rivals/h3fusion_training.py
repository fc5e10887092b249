"""How H3Fusion is trained and answers: whole feed-forward blocks tuned for one axis each, two of them a token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from jaxtyping import Float
from torch import Tensor, nn

from mocae.errors import ConfigError
from mocae.experts import (
    Optimisation,
    TrainingRecord,
    given_back,
    train_supervised,
)
from mocae.models import (
    BaseGenerator,
    GateTraining,
    LabelledRow,
    LoadedBase,
    Trace,
    batch_of,
    encode_rows,
    take_steps,
)
from mocae.trinityx import gating_loss
from mocae_rivals.feed_forward import FeedForwardMixture, load_modules, mix_feed_forward, save_modules

__all__ = ["BLOCKS", "H3FusionMixture", "H3Losses", "finetune_blocks", "on_h3fusion", "train_h3fusion"]

BLOCKS = "blocks.safetensors"
"""File of the blocks tuned for one axis."""


@dataclass(frozen=True, slots=True)
class H3Losses:
    """Weights of the terms added to the language-model loss.

    Attributes:
        gating: GL, cross-entropy of the mean gate against the axis of the row. H3Fusion: 0.01.
        regularisation: RL, sum over experts of their norms, a layer in the mean. H3Fusion: 0.001.

    Reference: H3Fusion (arXiv 2411.17792), gating loss and regularisation loss.
    """

    gating: float = 0.01
    regularisation: float = 0.001


def finetune_blocks(
    base: LoadedBase,
    pairs: Sequence[dict[str, str]],
    folder: Path,
    *,
    from_layer: int,
    optimisation: Optimisation,
    seed: int,
    label: str,
    work: Path | None = None,
) -> TrainingRecord:
    """Train a copy of every feed-forward block from `from_layer` up, all else frozen, and return what happened.

    The copies are fp32 whatever the base model is, and written to `blocks.safetensors` as "<layer>.<name>". The base
    model is used in place and given back as it was. Arguments and errors as in `finetune`.

    Raises:
        DataError: no pairs.
        ModelMismatchError: a decoder layer has no single feed-forward block.
        TrainingError: see `finetune`.

    Reference: H3Fusion (arXiv 2411.17792): one aligned model an axis, of which the feed-forward blocks are used.
    Deviation: all else is frozen, so that the blocks fit each other; there whole models are tuned with LoRA and the
        blocks of the result are taken.
    """
    transformers.set_seed(seed)
    base.model.requires_grad_(False)
    with given_back(base.model):
        # A mixture of one: its gate has no choice, and the block may be fp32 in a model that is not.
        mixtures = mix_feed_forward(base.model, n_experts=1, top_k=1, from_layer=from_layer, dtype=torch.float32)
        blocks = {layer: mixture.experts[0] for layer, mixture in mixtures.items()}
        for mixture in mixtures.values():
            mixture.requires_grad_(False)
            mixture.experts.requires_grad_(True)
        record = train_supervised(
            base, base.model, pairs, folder, optimisation=optimisation, seed=seed, label=label, work=work
        )
        save_modules(blocks, folder / BLOCKS)
    return record


def on_h3fusion(
    base: LoadedBase, folders: Sequence[Path], *, top_k: int, from_layer: int, seed: int
) -> dict[int, FeedForwardMixture]:
    """Replace the feed-forward blocks by mixtures of tuned ones, in place, and return the mixtures by layer.

    Args:
        base: the base model.
        folders: blocks written by `finetune_blocks`, one folder an axis.
        top_k: experts a token uses.
        from_layer: as the blocks were tuned.
        seed: of the gates' first weights, and of torch's global generator from here on.

    Raises:
        ArtifactError: blocks that cannot be read or do not fit.
        ConfigError: a top_k that is larger than the number of experts.
        ModelMismatchError: a decoder layer has no single feed-forward block.
    """
    if top_k > len(folders):
        raise ConfigError(f"H3Fusion: top_k is {top_k}, but there are {len(folders)} experts; give at most that")
    torch.manual_seed(seed)
    mixtures = mix_feed_forward(
        base.model, n_experts=len(folders), top_k=top_k, from_layer=from_layer, dtype=torch.float32
    )
    for k, folder in enumerate(folders):
        load_modules({layer: mixture.experts[k] for layer, mixture in mixtures.items()}, folder / BLOCKS)
    for mixture in mixtures.values():
        mixture.requires_grad_(False)
    return mixtures


def train_h3fusion(
    base: LoadedBase,
    mixtures: Mapping[int, FeedForwardMixture],
    rows: Sequence[tuple[str, str, int]],
    *,
    losses: H3Losses,
    train_experts: bool,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    max_length: int,
    seed: int,
) -> GateTraining:
    """Train the gates, and with `train_experts` the blocks behind them, in place, and return what happened.

    Args:
        base: the base model with the mixtures in it.
        mixtures: made by `on_h3fusion`.
        rows: (formatted prompt, formatted response, index of its axis).
        losses: weights of the added terms; with frozen experts the regularisation is a constant.
        train_experts: as H3Fusion does.
        learning_rate: peak, AdamW, with a cosine to zero.
        epochs: passes over the rows.
        batch_size: rows a step.
        max_length: tokens a row is cut to.
        seed: of the order.

    Raises:
        DataError: no rows, or none with room for a response.
        TrainingError: the loss is not finite, or the gates get no gradient from the language-model loss.
    """
    label = "H3Fusion gates and experts" if train_experts else "H3Fusion gates"
    base.model.requires_grad_(False)
    parts = [m if train_experts else m.gate for m in mixtures.values()]
    means: list[Tensor] = []
    trained = [parameter for part in parts for parameter in part.requires_grad_(True).parameters()]

    def loss(some: Sequence[LabelledRow]) -> tuple[Tensor, Tensor]:
        batch, axis = batch_of(some, pad=base.tokenizer.pad_token_id, device=base.model.device)
        with _gates(mixtures) as seen:
            language = base.model(**batch, use_cache=False).loss
            rows, tokens = batch["input_ids"].shape
            alpha = torch.stack([logits.float().softmax(-1).view(rows, tokens, -1) for logits in seen.values()])
        gating, _ = gating_loss(alpha, batch["attention_mask"], axis)
        added = losses.gating * gating
        if losses.regularisation and train_experts:
            added = added + losses.regularisation * _norms(mixtures)
        means.append(_used(mixtures, seen, batch["attention_mask"]).mean(0))
        return language, added

    encoded = encode_rows(base.tokenizer, rows, max_length, label=label)
    steps = take_steps(
        trained,
        encoded,
        loss,
        gates=[mixture.gate.weight for mixture in mixtures.values()],
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=label,
    )
    for part in parts:
        part.requires_grad_(False)
    return GateTraining.of(steps, means, sum(p.numel() for p in trained))


class H3FusionMixture(BaseGenerator):
    """Generates text with mixtures of feed-forward blocks in the model; the KV cache stays on.

    Args:
        base: model and tokenizer, the mixtures in the model.
        mixtures: by decoder layer.
        experts: names, in the order of the blocks.
        on_release: called by `release`, perhaps twice.
    """

    each_token = True

    def __init__(
        self,
        base: LoadedBase,
        mixtures: Mapping[int, FeedForwardMixture],
        experts: Sequence[str],
        *,
        on_release: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(base, on_release=on_release)
        self.experts = tuple(experts)
        self._mixtures = mixtures

    @contextmanager
    def reading(self, inputs: Mapping[str, Tensor], ids: Sequence[str]) -> Iterator[Trace]:
        """Return a context that keeps the mean weight of each expert over layers and prompt tokens."""
        trace = Trace()
        with _gates(self._mixtures, first_only=True) as logits:

            def keep(*_: Any) -> None:
                if trace.alpha is None:
                    trace.alpha = _used(self._mixtures, logits, inputs["attention_mask"])

            handle = self.base.model.register_forward_hook(keep)
            try:
                yield trace
            finally:
                handle.remove()


@contextmanager
def _gates(mixtures: Mapping[int, FeedForwardMixture], *, first_only: bool = False) -> Iterator[dict[int, Tensor]]:
    """Return a context that collects the gates' logits by layer: of the last pass, or of the first."""
    seen: dict[int, Tensor] = {}

    def keeper(layer: int) -> Any:
        def keep(_module: nn.Module, _args: Any, logits: Tensor) -> None:
            if not (first_only and layer in seen):
                seen[layer] = logits

        return keep

    with ExitStack() as stack:
        for layer, mixture in mixtures.items():
            stack.callback(mixture.gate.register_forward_hook(keeper(layer)).remove)
        yield seen


@torch.no_grad()
def _used(mixtures: Mapping[int, FeedForwardMixture], seen: Mapping[int, Tensor], mask: Tensor) -> Float[Tensor, "B K"]:
    """Return the weights in use, from the gates' logits: the mean over layers and real tokens."""
    real = mask[..., None].float()
    weights = torch.stack([mixtures[layer].weights(logits).view(*mask.shape, -1) for layer, logits in seen.items()])
    return ((weights.mean(0) * real).sum(1) / real.sum(1)).cpu()


def _norms(mixtures: Mapping[int, FeedForwardMixture]) -> Float[Tensor, ""]:
    """Return the sum over experts of the norm of each block, in the mean over layers."""
    norms = [
        torch.stack([p.square().sum() for p in expert.parameters()]).sum().sqrt()
        for mixture in mixtures.values()
        for expert in mixture.experts
    ]
    return torch.stack(norms).sum() / len(mixtures)
