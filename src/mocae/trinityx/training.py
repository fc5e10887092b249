"""Train the TrinityX router: language-model loss, gating loss, regularisation, entropy and KL, experts frozen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.models import GateTraining, LabelledRow, LoadedBase, batch_of, encode_rows, take_steps
from mocae.trinityx.mixture import routed
from mocae.trinityx.router import TrinityXRouter

__all__ = ["LossWeights", "gating_loss", "train_router"]


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the terms added to the language-model loss.

    Attributes:
        gating: GL, cross-entropy of the layer-mean gate against the axis of the row. H3Fusion: 0.01.
        regularisation: RL, sum of the experts' norms weighted by their mean gate. H3Fusion: 0.001.
        entropy: mean entropy of the gates (positive: sharper). TrinityX's code: 0.1.
        kl: KL divergence of the mean gate to that of the steps before. TrinityX's code: 0.01.

    Reference: H3Fusion (arXiv 2411.17792) for GL and RL; the TrinityX code for entropy and KL.
    Deviation: with frozen experts H3Fusion's RL is a constant; weighing each norm by its gate lets it reach the router.
    """

    gating: float = 0.01
    regularisation: float = 0.001
    entropy: float = 0.1
    kl: float = 0.01


def train_router(
    base: LoadedBase,
    bank: ExpertBank,
    router: TrinityXRouter,
    rows: Sequence[tuple[str, str, int]],
    *,
    weights: LossWeights,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    max_length: int,
    seed: int,
    expert_norms: Float[Tensor, " K"],
) -> GateTraining:
    """Train `router` in place and return what happened; base and experts do not change.

    Args:
        base: model and tokenizer.
        bank: experts, attached.
        router: starts from zero logits.
        rows: (formatted prompt, formatted response, index of its axis).
        weights: of the loss terms.
        learning_rate: peak, AdamW, with a cosine to zero.
        epochs: passes over the rows.
        batch_size: rows a step.
        max_length: tokens a row is cut to; a row whose prompt alone fills them is left out.
        seed: of the order.
        expert_norms: (K,) Frobenius norm of each task vector.

    Raises:
        DataError: no rows, or none with room for a response.
        TrainingError: loss or gates are not finite, or the gates get no gradient from the language-model loss.
    """
    label = "TrinityX router"
    encoded = encode_rows(base.tokenizer, rows, max_length, label=label)
    router.to(base.model.device)
    base.model.requires_grad_(False)
    means: list[Tensor] = []
    previous = torch.full((len(bank.names),), 1 / len(bank.names))

    def loss(some: Sequence[LabelledRow]) -> tuple[Tensor, Tensor]:
        nonlocal previous
        language, added, mean, used = _loss(base, bank, router, some, weights, previous, expert_norms)
        previous = 0.9 * previous + 0.1 * mean
        means.append(used)
        return language, added

    steps = take_steps(
        router.parameters(),
        encoded,
        loss,
        gates=(router.weight, router.bias),
        learning_rate=learning_rate,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        label=label,
    )
    return GateTraining.of(steps, means, sum(parameter.numel() for parameter in router.parameters()))


def gating_loss(
    alpha: Float[Tensor, "L B T K"], mask: Int[Tensor, "B T"], axis: Int[Tensor, " B"]
) -> tuple[Float[Tensor, ""], Float[Tensor, " K"]]:
    """Return GL, the cross-entropy of each row's mean gate against its axis, and the mean gate of the batch.

    Args:
        alpha: gates of every routing layer, after softmax.
        mask: which tokens are no padding.
        axis: index of each row's axis.

    Reference: H3Fusion (arXiv 2411.17792), gating loss: the mean over layers and tokens against the one-hot label.
    """
    real = mask[None, :, :, None].to(alpha.dtype)
    by_row = (alpha * real).sum((0, 2)) / (real.sum(2)[0] * len(alpha))
    return torch.nn.functional.nll_loss(by_row.clamp_min(1e-12).log(), axis), by_row.mean(0)


def _loss(
    base: LoadedBase,
    bank: ExpertBank,
    router: TrinityXRouter,
    rows: Sequence[LabelledRow],
    weights: LossWeights,
    previous: Float[Tensor, " K"],
    expert_norms: Float[Tensor, " K"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the language-model loss, the weighted sum of the others, the mean gate and the mean weights in use."""
    device = base.model.device
    batch, axis = batch_of(rows, pad=base.tokenizer.pad_token_id, device=device)
    mask = batch["attention_mask"]
    with routed(bank, router) as seen:
        language = base.model(**batch, use_cache=False).loss
        alpha = torch.stack(seen)
    gating, mean = gating_loss(alpha, mask, axis)
    entropy = -((alpha.clamp_min(1e-12).log() * alpha).sum(-1) * mask[None]).sum() / (mask.sum() * len(alpha))
    kl = (mean * (mean.clamp_min(1e-12) / previous.to(device).clamp_min(1e-12)).log()).sum()
    added = (
        weights.gating * gating
        + weights.regularisation * (mean * expert_norms.to(device)).sum()
        + weights.entropy * entropy
        + weights.kl * kl
    )
    with torch.no_grad():
        used = (router.fuse(alpha) * mask[None, :, :, None]).sum((0, 1, 2)) / (mask.sum() * len(alpha))
    return language, added, mean.detach().cpu(), used.cpu()
