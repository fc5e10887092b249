"""Stage 1 without gradients: MeZO, two forward passes a step, for machines that cannot hold what gradients need."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from pydantic import PositiveFloat
from torch import nn

from mocae.errors import DataError, TrainingError
from mocae.experts import LoraSpec, Optimisation, TrainingRecord, save_adapter, trainable_adapter, with_room
from mocae.models import LabelledRow, LoadedBase, batch_of
from mocae.progress import bar

__all__ = ["finetune_forward_only", "spsa_step"]

_IGNORED = -100


def finetune_forward_only(
    base: LoadedBase,
    pairs: Sequence[dict[str, str]],
    folder: Path,
    *,
    lora: LoraSpec,
    optimisation: Optimisation,
    seed: int,
    label: str,
    base_name: str,
    start_from: Path | None = None,
    perturbation: PositiveFloat = 1e-3,
) -> TrainingRecord:
    """Train an adapter without gradients (MeZO), two forward passes a step, and return what happened.

    It is written to `folder` as PEFT does.

    Memory is that of answering: no activation is kept for a backward pass, no gradient and no optimiser state exist.
    The price is steps: the direction is random, so many more are needed than with gradients. The base model is given
    back as it was, as by `finetune`; weight decay, warm-up and schedule are those of `optimisation`, checkpoints are
    not written.

    Args:
        base: model and tokenizer; quantised models too, since nothing flows back through them.
        pairs: made by `inject`.
        folder: where the adapter goes; must exist.
        lora: shape of the adapter, the only thing that moves.
        optimisation: learning rate, epochs, batches and schedule.
        seed: of initialisation, order and directions; the same seed gives the same adapter.
        label: what the progress bar and errors say.
        base_name: name written into the adapter.
        start_from: an adapter to train further.
        perturbation: size of the random step the loss is compared over (epsilon). MeZO: 1e-3.

    Raises:
        DataError: no pairs.
        ConfigError: a layer or target module the model does not have.
        TrainingError: the loss is not finite, or no prompt leaves room for its response.

    Reference: Malladi et al., *Fine-Tuning Language Models with Just Forward Passes*, arXiv 2305.17333, algorithm 1.
    Deviation: the paper keeps the learning rate constant; here the recipe's schedule applies.
    """
    if not pairs:
        raise DataError(f"{label}: no training rows; give at least one")
    room = with_room(base.tokenizer, pairs, optimisation.max_length, label)
    started = time.monotonic()
    transformers.set_seed(seed)
    losses: list[float] = []
    with trainable_adapter(base.model, lora, start_from=start_from) as wrapped:
        wrapped.eval()  # dropout would make the two passes differ in more than the step
        parameters = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        encoded = (
            LabelledRow.of(base.tokenizer, pair["prompt"], pair["completion"], optimisation.max_length)
            for pair in room.rows
        )
        batches = list(_batches([row for row in encoded if row is not None], optimisation, seed=seed))
        rates = _rates(optimisation, len(batches))
        directions = random.Random(f"directions {seed}")
        with bar(len(batches), label) as shown:
            for batch, rate in zip(batches, rates, strict=True):
                step = spsa_step(
                    parameters,
                    lambda batch=batch: _loss(wrapped, batch, optimisation.batch_size),
                    perturbation=perturbation,
                    learning_rate=rate,
                    weight_decay=optimisation.weight_decay,
                    seed=directions.getrandbits(63),
                )
                if not math.isfinite(step):
                    raise TrainingError(
                        f"{label}: the loss is {step} at step {len(losses) + 1}. Lower "
                        "experts.optimizer.learning_rate or experts.optimizer.options.perturbation"
                    )
                losses.append(step)
                shown.note(f"loss {step:.3f}")
                shown.advance()
        n_parameters = save_adapter(wrapped, folder, base_name=base_name)
    return TrainingRecord.of(
        losses,
        room=room,
        n_steps=len(losses),
        seconds=time.monotonic() - started,
        n_parameters=n_parameters,
    )


@torch.no_grad()
def spsa_step(
    parameters: Sequence[nn.Parameter],
    loss: Any,
    *,
    perturbation: float,
    learning_rate: float,
    weight_decay: float = 0.0,
    seed: int,
) -> float:
    """Move parameters once along a random direction, in place, and return the mean of the two losses.

    The direction z is drawn again from its seed each time it is needed, one parameter at a time, so it is never held
    whole. The slope along it is (L(p + eps z) - L(p - eps z)) / (2 eps).

    Args:
        parameters: what moves.
        loss: a function of nothing that returns the loss as a float.
        perturbation: eps.
        learning_rate: of this step.
        weight_decay: share of the parameter taken off, times the learning rate.
        seed: of the direction.
    """
    _move(parameters, perturbation, seed)
    above = float(loss())
    _move(parameters, -2 * perturbation, seed)
    below = float(loss())
    _move(parameters, perturbation, seed)
    slope = (above - below) / (2 * perturbation)
    if math.isfinite(slope):
        if weight_decay:
            for parameter in parameters:
                parameter.mul_(1 - learning_rate * weight_decay)
        _move(parameters, -learning_rate * slope, seed)
    return (above + below) / 2


def _move(parameters: Sequence[nn.Parameter], size: float, seed: int) -> None:
    """Add `size` times the direction of a seed to the parameters."""
    generators: dict[torch.device, torch.Generator] = {}
    for parameter in parameters:
        device = parameter.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        z = torch.randn(parameter.shape, generator=generators[device], device=device, dtype=parameter.dtype)
        parameter.add_(z, alpha=size)


def _batches(rows: Sequence[LabelledRow], optimisation: Optimisation, *, seed: int) -> Iterator[list[LabelledRow]]:
    """Yield the rows of each step, shuffled anew in each epoch; a part of an epoch ends early."""
    size = optimisation.batch_size * optimisation.gradient_accumulation
    a_pass = math.ceil(len(rows) / size)
    left = max(1, round(a_pass * optimisation.epochs))
    order = random.Random(f"order {seed}")
    while left > 0:
        shuffled = list(rows)
        order.shuffle(shuffled)
        for start in range(0, len(shuffled), size)[:left]:
            yield shuffled[start : start + size]
        left -= a_pass


def _rates(optimisation: Optimisation, n_steps: int) -> list[float]:
    """Return the learning rate of each step, by the schedule the trainers use."""
    nothing = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optimisation.learning_rate)
    schedule = transformers.get_scheduler(
        optimisation.lr_scheduler,
        nothing,
        num_warmup_steps=math.ceil(optimisation.warmup_ratio * n_steps),
        num_training_steps=n_steps,
    )
    rates = []
    for _ in range(n_steps):
        rates.append(float(schedule.get_last_lr()[0]))
        nothing.step()
        schedule.step()
    return rates


def _loss(model: Any, rows: Sequence[LabelledRow], batch_size: int) -> float:
    """Return the mean loss a response token over the rows, `batch_size` of them at once."""
    total, n = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch, _ = batch_of(rows[start : start + batch_size], pad=0, device=model.device)  # masked: any token will do
        wanted = batch.pop("labels")[:, 1:]
        logits = model(**batch, use_cache=False).logits[:, :-1]
        seen = wanted != _IGNORED
        total += float(nn.functional.cross_entropy(logits[seen].float(), wanted[seen], reduction="sum"))
        n += int(seen.sum())
    return total / max(1, n)
