"""Train the TrinityX router: language-model loss, gating loss, regularisation, entropy and KL, experts frozen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.errors import ConfigError, DataError, TrainingError
from mocae.models import LoadedBase
from mocae.progress import bar
from mocae.trinityx.mixture import routed
from mocae.trinityx.router import TrinityXRouter

__all__ = ["LossWeights", "RouterTraining", "train_router"]

_IGNORED = -100


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


@dataclass(frozen=True, slots=True)
class RouterTraining:
    """What training the router did.

    Attributes:
        n_steps: optimiser steps.
        first_loss: mean language-model loss of the first tenth of the steps, in nats a token.
        last_loss: of the last tenth.
        gradient_norm: largest gradient norm seen.
        entropy: normalised entropy of the mean gate in the last tenth of the steps: near 0 the router uses one expert
            for everything.
        collapsed: entropy below 0.1.
    """

    n_steps: int
    first_loss: float
    last_loss: float
    gradient_norm: float
    entropy: float
    collapsed: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """Tokens of prompt, response and end; labels are the response and the end alone."""

    ids: list[int]
    labels: list[int]
    axis: int


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
) -> RouterTraining:
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
        TrainingError: loss or gates are not finite, or the router received no gradient.
    """
    encoded = _encoded(base.tokenizer, rows, max_length)
    router.to(base.model.device)
    optimizer = torch.optim.AdamW(router.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(encoded) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    means: list[Tensor] = []
    largest = 0.0
    previous = torch.full((len(bank.names),), 1 / len(bank.names))
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
    with bar(steps, "TrinityX router") as shown:
        for _ in range(epochs):
            order = torch.randperm(len(encoded), generator=generator).tolist()
            for start in range(0, len(order), batch_size):
                some = [encoded[i] for i in order[start : start + batch_size]]
                try:
                    language, added, mean = _loss(base, bank, router, some, weights, previous, expert_norms)
                except ConfigError as error:  # the bank refuses gates that are not finite
                    raise _not_finite(len(losses) + 1, str(error)) from error
                optimizer.zero_grad()
                (language + added).backward()
                norm = float(torch.nn.utils.clip_grad_norm_(router.parameters(), 1.0))
                loss = float((language + added).detach())
                if not math.isfinite(loss + norm):
                    raise _not_finite(len(losses) + 1, f"loss {loss}, gradient norm {norm}")
                largest = max(largest, norm)
                optimizer.step()
                schedule.step()
                previous = 0.9 * previous + 0.1 * mean
                means.append(mean)
                losses.append(float(language.detach()))
                shown.note(f"loss {losses[-1]:.3f}")
                shown.advance()
    if largest == 0.0:
        raise TrainingError("TrinityX router: it received no gradient; its experts make no difference to the loss")
    tenth = max(1, len(losses) // 10)
    gate = torch.stack(means[-tenth:]).mean(0)
    entropy = float(-(gate * gate.clamp_min(1e-12).log()).sum() / math.log(max(2, len(gate))))
    return RouterTraining(
        n_steps=len(losses),
        first_loss=sum(losses[:tenth]) / tenth,
        last_loss=sum(losses[-tenth:]) / tenth,
        gradient_norm=largest,
        entropy=entropy,
        collapsed=entropy < 0.1,
    )


def _not_finite(step: int, what: str) -> TrainingError:
    return TrainingError(f"TrinityX router: not finite at step {step} ({what}); lower its learning rate")


def _encoded(tokenizer: Any, rows: Sequence[tuple[str, str, int]], max_length: int) -> list[_Row]:
    """Return the rows as tokens, those whose prompt leaves no room for a response left out.

    Raises:
        DataError: no rows, or none with room.
    """
    if not rows:
        raise DataError("the TrinityX router needs training rows, got none")
    found = []
    for prompt, response, axis in rows:
        asked = tokenizer(prompt)["input_ids"]
        said = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if len(asked) < max_length:
            found.append(_Row((asked + said)[:max_length], ([_IGNORED] * len(asked) + said)[:max_length], axis))
    if not found:
        raise DataError(
            f"TrinityX router: the prompts of all {len(rows)} rows fill max_length = {max_length} tokens, so no "
            "response is left to train on; raise experts.max_length"
        )
    return found


def _batch(rows: Sequence[_Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and labels, padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (longest - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    return ids, mask, torch.tensor([row.labels + [_IGNORED] * (longest - len(row.labels)) for row in rows])


def _loss(
    base: LoadedBase,
    bank: ExpertBank,
    router: TrinityXRouter,
    rows: Sequence[_Row],
    weights: LossWeights,
    previous: Float[Tensor, " K"],
    expert_norms: Float[Tensor, " K"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the language-model loss, the weighted sum of the other terms, and the mean gate, detached."""
    device = base.model.device
    ids, mask, labels = (t.to(device) for t in _batch(rows, base.tokenizer.pad_token_id))
    axis: Int[Tensor, " B"] = torch.tensor([row.axis for row in rows], device=device)
    with routed(bank, router) as seen:
        language = base.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        alpha = torch.stack(seen)
    real = mask[None, :, :, None].to(alpha.dtype)
    by_row = (alpha * real).sum((0, 2)) / (real.sum(2)[0] * len(alpha))
    mean = by_row.mean(0)
    entropy = -((alpha.clamp_min(1e-12).log() * alpha).sum(-1) * mask[None]).sum() / (mask.sum() * len(alpha))
    kl = (mean * (mean.clamp_min(1e-12) / previous.to(device).clamp_min(1e-12)).log()).sum()
    added = (
        weights.gating * torch.nn.functional.nll_loss(by_row.clamp_min(1e-12).log(), axis)
        + weights.regularisation * (mean * expert_norms.to(device)).sum()
        + weights.entropy * entropy
        + weights.kl * kl
    )
    return language, added, mean.detach().cpu()
