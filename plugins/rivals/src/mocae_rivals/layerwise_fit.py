"""Weights of layer blocks from calibration data: the optimisation of heterogeneous model averaging."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.errors import ConfigError, TrainingError
from mocae.models import decoder_layers

__all__ = ["BlockWeights", "block_weights_in_force", "fit_block_weights"]


class BlockWeights(NamedTuple):
    """Fitted weights of layer blocks.

    Attributes:
        weights: one row a block from the lowest, one column an expert; of the step with the lowest loss.
        losses: loss at each step, the first one that of equal blocks.
    """

    weights: Float[Tensor, "n_blocks K"]
    losses: tuple[float, ...]


def fit_block_weights(
    loss: Callable[[Tensor], Tensor],
    *,
    mean: Float[Tensor, " K"],
    n_blocks: int,
    steps: int,
    lr: float,
    epsilon: float = 0.2,
) -> BlockWeights:
    """Return the block weights of lowest calibration loss whose mean over the blocks is `mean`.

    A fixed mean keeps the share of alignment; only its place in the depth is fitted. Block weights are
    mean * n_blocks * (sigmoid(a) + epsilon) / (sum over blocks of the same), fitted with Adam from equal blocks.

    Args:
        loss: differentiable calibration loss of weights (n_blocks, K), e.g. a language-model loss inside
            `block_weights_in_force`.
        mean: weight of each expert averaged over the blocks.
        n_blocks: number of blocks, at least 2.
        steps: evaluations of the loss, at least 1.
        lr: learning rate of Adam.
        epsilon: how far blocks may drift apart, above 0; small = far.

    Raises:
        ConfigError: a number is out of range, or the loss is no scalar with a gradient.
        TrainingError: the loss is not finite.

    Reference: Lin et al. (arXiv 2309.06256), HMA, and their code (normalised sigmoids, epsilon 0.2). Deviation:
        any number of experts; the small penalty on unequal blocks in their code is left out.
    """
    if n_blocks < 2 or steps < 1 or epsilon <= 0 or lr <= 0:
        raise ConfigError(
            f"n_blocks {n_blocks}, steps {steps}, lr {lr}, epsilon {epsilon} are not possible; "
            "give n_blocks >= 2, steps >= 1 and lr, epsilon above 0"
        )
    free = torch.zeros(n_blocks, mean.shape[0], device=mean.device, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=lr)
    best, losses = mean.expand(n_blocks, -1), list[float]()
    for step in range(steps):
        share = torch.sigmoid(free) + epsilon
        weights = mean.detach() * n_blocks * share / share.sum(0)
        value = loss(weights)
        if value.dim() or not value.requires_grad:
            raise ConfigError(
                f"the calibration loss has shape {tuple(value.shape)} and requires_grad={value.requires_grad}; "
                "it must be a scalar with a gradient to the weights"
            )
        if not torch.isfinite(value):
            raise TrainingError(f"the calibration loss is {value.item()} at step {step}; lower lr (now {lr})")
        if not losses or value.item() < min(losses):
            best = weights.detach()
        losses.append(value.item())
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return BlockWeights(best.clone(), tuple(losses))


@contextmanager
def block_weights_in_force(
    bank: ExpertBank, weights: Float[Tensor, "n_blocks K"], *, boundaries: Sequence[int]
) -> Iterator[ExpertBank]:
    """Return a context in which each block of layers holds its own weights; gradients flow to `weights`.

    The same model as `hma` with these weights, without merging: the weights are set as a pass enters each block.

    Args:
        bank: experts attached to the model.
        weights: one row a block, columns in the order of `bank.names`.
        boundaries: first layer of each block but the lowest, below the number of layers.

    Raises:
        ConfigError: weights, boundaries and the model's layers do not fit.
        ModelMismatchError: the decoder layers are not found.
    """
    layers, starts = decoder_layers(bank.model), [0, *boundaries]
    if len(starts) != weights.shape[0] or starts != sorted(set(starts)) or starts[-1] >= len(layers):
        raise ConfigError(
            f"boundaries {list(boundaries)} do not cut {len(layers)} layers into {weights.shape[0]} blocks, one a row "
            "of weights; see layer_blocks"
        )

    def enter(block: int, *_: Any) -> None:
        bank.set_weights(weights[block])

    with ExitStack() as stack:
        stack.enter_context(bank.weights(weights[0]))
        for block, start in enumerate(starts):
            stack.callback(layers[start].register_forward_pre_hook(partial(enter, block)).remove)
        yield bank
