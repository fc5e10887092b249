"""Train a few parameters beside a frozen model: rows as tokens, AdamW steps, checks that the training is real."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mocae.errors import ConfigError, DataError, TrainingError
from mocae.progress import bar, say
from mocae.prompts import row_tokens

__all__ = ["GateTraining", "LabelledRow", "Steps", "batch_of", "encode_rows", "say_cut", "take_steps"]

T = TypeVar("T")

_COLLAPSED = 0.1
"""Normalised entropy of the mean weights below which a router uses one expert for nearly everything."""

_IGNORED = -100
_CHECKED = 8
"""Steps in which the language-model loss must reach the gates."""
_ROUNDING = 1e-5
"""Gradient norm of the language-model loss over that loss: below it gates move by rounding errors alone."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """Tokens of prompt, response and end; labels are the response and the end alone; `axis` is an index."""

    ids: list[int]
    labels: list[int]
    axis: int = 0

    @classmethod
    def of(cls, tokenizer: Any, prompt: str, response: str, max_length: int, *, axis: int = 0) -> "LabelledRow | None":
        """Return formatted texts as a row cut to `max_length` tokens, None where the prompt alone fills them."""
        prompt_ids, response_ids = row_tokens(tokenizer, prompt, response)
        if len(prompt_ids) >= max_length:
            return None
        labels = [_IGNORED] * len(prompt_ids) + response_ids
        return cls((prompt_ids + response_ids)[:max_length], labels[:max_length], axis)


@dataclass(frozen=True, slots=True)
class Steps:
    """What a training did.

    Attributes:
        n_steps: optimiser steps.
        first_loss: mean language-model loss of the first tenth of the steps, in nats a token.
        last_loss: of the last tenth.
        gradient_norm: largest gradient norm seen.
        language_gradient: largest norm of the gradient the gates get from the language-model loss alone, in the first
            steps.
    """

    n_steps: int
    first_loss: float
    last_loss: float
    gradient_norm: float
    language_gradient: float


@dataclass(frozen=True, slots=True)
class GateTraining(Steps):
    """What training the gates of a mixture did.

    Attributes:
        entropy: normalised entropy of the mean weights in use, after importance and pruning, in the last tenth of the
            steps: near 0 one expert is used for everything.
        collapsed: entropy below 0.1.
        n_parameters: trained parameters.
    """

    entropy: float
    collapsed: bool
    n_parameters: int

    @classmethod
    def of(cls, steps: Steps, means: Sequence[Float[Tensor, " K"]], n_parameters: int) -> "GateTraining":
        """Return the record of some steps; `means` holds the mean of the weights in use of each step."""
        gate = torch.stack(list(means[-max(1, len(means) // 10) :])).mean(0)
        entropy = float(-(gate * gate.clamp_min(1e-12).log()).sum() / math.log(max(2, len(gate))))
        return cls(**asdict(steps), entropy=entropy, collapsed=entropy < _COLLAPSED, n_parameters=n_parameters)


def encode_rows(
    tokenizer: Any, rows: Sequence[tuple[str, str, int]], max_length: int, *, label: str
) -> list[LabelledRow]:
    """Return (formatted prompt, formatted response, index of the axis) as tokens, cut to `max_length`.

    Rows whose prompt leaves no room for a response are left out; how many responses are cut is told.

    Raises:
        DataError: no rows, or none with room.
    """
    if not rows:
        raise DataError(f"{label}: it needs training rows, got none")
    encoded = [LabelledRow.of(tokenizer, prompt, response, max_length, axis=axis) for prompt, response, axis in rows]
    fitting = [row for row in encoded if row is not None]
    if not fitting:
        raise DataError(
            f"{label}: the prompts of all {len(rows)} rows fill max_length = {max_length} tokens, so no "
            "response is left to train on; raise experts.max_length"
        )
    n_cut = sum(row.ids[-1] != tokenizer.eos_token_id for row in fitting)
    say_cut(n_cut, len(fitting), max_length, label)
    return fitting


def say_cut(n_cut: int, n_rows: int, max_length: int, label: str) -> None:
    """Tell how many responses are cut, where any is."""
    if n_cut:
        say(
            f"{label}: {n_cut} of {n_rows} rows have a response that is cut at experts.max_length = {max_length}, its "
            "end token with it; who learns from many of them does not learn to stop"
        )


def batch_of(
    rows: Sequence[LabelledRow], *, pad: int, device: torch.device
) -> tuple[dict[str, Int[Tensor, "B T"]], Int[Tensor, " B"]]:
    """Return what the model is called with, padded on the right, and the axis of each row."""
    longest = max(len(row.ids) for row in rows)
    fill = [longest - len(row.ids) for row in rows]
    batch = {
        "input_ids": [row.ids + [pad] * n for row, n in zip(rows, fill, strict=True)],
        "attention_mask": [[1] * len(row.ids) + [0] * n for row, n in zip(rows, fill, strict=True)],
        "labels": [row.labels + [_IGNORED] * n for row, n in zip(rows, fill, strict=True)],
    }
    tensors = {name: torch.tensor(values, device=device) for name, values in batch.items()}
    return tensors, torch.tensor([row.axis for row in rows], device=device)


def take_steps(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    rows: Sequence[T],
    loss: Callable[[Sequence[T]], tuple[Tensor, Tensor]],
    *,
    gates: Sequence[Tensor] = (),
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    label: str,
) -> Steps:
    """Train parameters in place with AdamW and return what happened.

    Args:
        parameters: what is trained, or groups of it with settings of AdamW.
        rows: all rows, such as those of `encode_rows`.
        loss: rows of one step -> language-model loss, and the weighted sum of what is added to it.
        gates: those of the parameters that route; the language-model loss alone must reach them, since a router that
            only its added losses move learns nothing about the answers. None: nothing is checked.
        learning_rate: peak, with a cosine to zero.
        epochs: passes over the rows.
        batch_size: rows a step.
        seed: of the order.
        label: what the progress bar and errors say.

    Raises:
        TrainingError: loss or gates are not finite, or the gates get no gradient from the language-model loss.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * math.ceil(len(rows) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    largest = reached = relative = 0.0
    with bar(steps, label) as shown:
        for _ in range(epochs):
            order = torch.randperm(len(rows), generator=generator).tolist()
            for start in range(0, len(order), batch_size):
                some = [rows[i] for i in order[start : start + batch_size]]
                try:
                    language, added = loss(some)
                except ConfigError as error:  # the bank refuses gates that are not finite
                    raise _not_finite(label, len(losses) + 1, str(error)) from error
                total = language + added
                if gates and len(losses) < _CHECKED:
                    gradient = _gradient_norm(language, gates)
                    reached = max(reached, gradient)
                    relative = max(relative, gradient / max(float(language.detach()), 1e-12))
                optimizer.zero_grad()
                if total.requires_grad:  # a router cut off from the loss is told below
                    total.backward()
                norm = float(nn.utils.clip_grad_norm_(trained, 1.0))
                if not math.isfinite(float(total.detach()) + norm):
                    raise _not_finite(label, len(losses) + 1, f"loss {float(total.detach())}, gradient norm {norm}")
                largest = max(largest, norm)
                optimizer.step()
                schedule.step()
                losses.append(float(language.detach()))
                if gates and len(losses) == min(_CHECKED, steps) and relative < _ROUNDING:
                    raise TrainingError(
                        f"{label}: it received no gradient from the language-model loss (norm {reached:.1e} at a loss "
                        f"of {losses[-1]:.2f}); its experts make no difference to the loss, or its weights do not "
                        "depend on its gates"
                    )
                shown.note(f"loss {losses[-1]:.3f}")
                shown.advance()
    tenth = max(1, len(losses) // 10)
    return Steps(len(losses), sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth, largest, reached)


def _gradient_norm(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    """Return the norm of the gradient of a loss; its graph stays."""
    if not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return math.sqrt(math.fsum(float(g.detach().double().square().sum()) for g in gradients if g is not None))


def _not_finite(label: str, step: int, what: str) -> TrainingError:
    return TrainingError(f"{label}: not finite at step {step} ({what}); lower its learning rate")
