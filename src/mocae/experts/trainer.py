"""What every training with TRL shares: its settings, rows that leave room to learn, progress, checkpoints, a record."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets
import torch
import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import sort_checkpoints

from mocae.distributed import agreed, size, split_batch
from mocae.errors import TrainingError
from mocae.experts.lora import quiet_peft
from mocae.experts.thrift import rows_at_once, thrifty
from mocae.models import LoadedBase
from mocae.models.steps import say_cut
from mocae.progress import Bar, bar, say

__all__ = [
    "Optimisation",
    "Room",
    "TrainingRecord",
    "at_most_of",
    "save_adapter",
    "train_with",
    "training_arguments",
    "with_room",
]

_ArgumentsT = TypeVar("_ArgumentsT", bound=TrainingArguments)


@dataclass(frozen=True, slots=True)
class Optimisation:
    """AdamW and its schedule.

    Attributes:
        learning_rate: peak.
        epochs: passes over the rows.
        batch_size: rows seen at once.
        gradient_accumulation: batches summed before one step; each token weighs the same in all of them. Several
            processes share the batch_size x gradient_accumulation rows of a step, so it is the same step.
        weight_decay: of AdamW.
        warmup_ratio: share of the steps that warm up, in [0, 1].
        lr_scheduler: name of the schedule, as the trainer knows it.
        max_length: longest row in tokens; a response is cut to it.
        checkpoint_steps: steps between checkpoints, None: no checkpoints.
    """

    learning_rate: float
    epochs: float
    batch_size: int
    gradient_accumulation: int = 1
    weight_decay: float = 0.0
    warmup_ratio: float = 0.03
    lr_scheduler: str = "cosine"
    max_length: int = 512
    checkpoint_steps: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a fine-tuning run did.

    Attributes:
        n_rows: rows trained on.
        n_left_out: rows of which `max_length` leaves nothing: the prompt fills it, or a pair is equal up to it.
        n_cut: rows whose response is cut at `max_length`, its end token with it.
        n_steps: optimiser steps, those before a checkpoint it went on from among them.
        seconds: time it took, without what came before the checkpoint.
        first_loss: mean loss of the first tenth of the steps, in nats a token.
        last_loss: of the last tenth.
        n_parameters: trained parameters.
    """

    n_rows: int
    n_left_out: int
    n_cut: int
    n_steps: int
    seconds: float
    first_loss: float
    last_loss: float
    n_parameters: int

    @classmethod
    def of(
        cls, losses: Sequence[float], *, room: Room, n_steps: int, seconds: float, n_parameters: int
    ) -> TrainingRecord:
        """Return the record of a run with these losses, one a step."""
        tenth = max(1, len(losses) // 10)
        first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
        return cls(len(room.rows), room.n_left_out, room.n_cut, n_steps, round(seconds, 2), first, last, n_parameters)


def training_arguments(
    kind: type[_ArgumentsT],
    base: LoadedBase,
    optimisation: Optimisation,
    *,
    seed: int,
    work: Path,
    at_most: int | None = None,
    **more: Any,
) -> _ArgumentsT:
    """Return the settings of a trainer; `more` are those of its own kind, `at_most` as in `train_with`."""
    on_cpu = base.model.device.type == "cpu"
    every = optimisation.checkpoint_steps
    at_once, accumulation = split_batch(optimisation.batch_size, optimisation.gradient_accumulation, size(), at_most)
    settings: dict[str, Any] = {
        "output_dir": str(work),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": optimisation.learning_rate,
        "num_train_epochs": optimisation.epochs,
        "weight_decay": optimisation.weight_decay,
        # Below 1 it is a share of the steps; 1 would be one step.
        "warmup_steps": min(optimisation.warmup_ratio, math.nextafter(1, 0)),
        "lr_scheduler_type": optimisation.lr_scheduler,
        "max_length": optimisation.max_length,
        # Every loss is looked at: the trainer's default would hide one that is not finite.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no" if every is None else "steps",
        "save_steps": every or 1,
        "save_total_limit": 1,
        "use_cpu": on_cpu,
        # The base is loaded in the dtype it computes in; autocast lets adapters compute in it too, see `thrifty`.
        "bf16": at_most is not None and base.model.dtype == torch.bfloat16,
        "fp16": False,
        "activation_checkpointing": not on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "disable_tqdm": True,
    }
    arguments = kind(**settings, **more)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the model is on one device; TRL refuses the copies the trainer would spread over all
    return arguments


def at_most_of(base: LoadedBase, optimisation: Optimisation, room: Room) -> int | None:
    """Return how many rows of a step are worth a pass of their own; None: leave it whole. See `rows_at_once`."""
    n_parameters = sum(parameter.numel() for parameter in base.model.parameters())
    step = optimisation.batch_size * optimisation.gradient_accumulation
    return rows_at_once(base.model.device.type, n_parameters, room.tokens, step)


def train_with(
    trainer: type[transformers.Trainer],
    wrapped: Any,
    rows: Sequence[dict[str, Any]],
    arguments: TrainingArguments,
    *,
    tokenizer: Any,
    room: Room,
    label: str,
    work: Path | None,
    at_most: int | None = None,
) -> TrainingRecord:
    """Train what takes a gradient in a model, in place, and return what happened.

    Args:
        trainer: of TRL.
        wrapped: the model.
        rows: as the trainer takes them, made of those of `room`.
        arguments: made by `training_arguments`.
        tokenizer: of the model.
        room: what `with_room` left.
        label: what the progress bar and errors say.
        work: folder of checkpoints, whose last whole one is gone on from; None: there are none.
        at_most: rows seen at once, and that time and memory are saved otherwise; None: as the settings say.

    Raises:
        TrainingError: the trainer refuses the model, or the loss is not finite.
    """
    started = time.monotonic()
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # one for every small step of preparing rows
    try:
        made = trainer(
            model=wrapped,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(list(rows)),
            processing_class=tokenizer,
        )
    except ValueError as error:
        raise TrainingError(f"{label}: the trainer refuses this model or its settings: {error}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    made.remove_callback(transformers.PrinterCallback)
    with ExitStack() as stack, quiet_peft():
        made.add_callback(_Watcher(stack, label))
        if at_most is not None:
            stack.enter_context(thrifty(wrapped))
        made.train(resume_from_checkpoint=agreed(_last_whole_checkpoint(work)))
    return TrainingRecord.of(
        [entry["loss"] for entry in made.state.log_history if "loss" in entry],
        room=room,
        n_steps=made.state.global_step,
        seconds=time.monotonic() - started,
        n_parameters=sum(p.numel() for p in wrapped.parameters() if p.requires_grad),
    )


def save_adapter(wrapped: Any, folder: Path, *, base_name: str) -> int:
    """Write the adapter a model wears as PEFT does and return how many values it holds.

    Args:
        wrapped: a PEFT model.
        folder: must exist.
        base_name: of the base model; a name, not a path: the folder must mean the same on another machine.
    """
    config: Any = wrapped.peft_config["default"]
    config.base_model_name_or_path = base_name
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules)  # a set, so the file would differ from run to run
    # PEFT would look the name up on the hub to see whether the embeddings grew; they never do.
    # TRL may have put a copy beside it, for the reference.
    wrapped.save_pretrained(str(folder), save_embedding_layers=False, selected_adapters=["default"])
    (folder / "README.md").unlink(missing_ok=True)
    return sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


class Room(NamedTuple):
    """The rows that `max_length` leaves something to learn of, how many it does not, and how many it cuts.

    `tokens` is how many a row has on average, those of both answers of a pair.
    """

    rows: list[dict[str, Any]]
    n_left_out: int
    n_cut: int
    tokens: float


def with_room(tokenizer: Any, rows: Sequence[dict[str, Any]], max_length: int, label: str) -> Room:
    """Return the rows whose prompt leaves room for a response, and for two that differ where it is a pair.

    Raises:
        TrainingError: there is none.
    """
    lengths = [len(ids) for ids in tokenizer([row["prompt"] for row in rows])["input_ids"]]
    kept, n_equal, n_cut, n_tokens = [], 0, 0, 0
    for row, length in zip(rows, lengths, strict=True):
        if length >= max_length:
            continue
        texts = [row[key] for key in ("completion", "chosen", "rejected") if key in row]
        responses = [[*ids, None] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]  # None: the end
        room = max_length - length
        if len(responses) > 1 and responses[0][:room] == responses[1][:room]:
            n_equal += 1
            continue
        n_cut += any(len(response) > room for response in responses)
        n_tokens += sum(length + min(len(response), room) for response in responses)
        kept.append(row)
    n_full = sum(length >= max_length for length in lengths)
    limit = f"experts.max_length = {max_length}"
    if n_full == len(rows):
        raise TrainingError(
            f"{label}: every prompt has at least max_length = {max_length} tokens (the shortest {min(lengths)}), so no "
            "response is left to train on; raise experts.max_length"
        )
    if not kept:
        raise TrainingError(f"{label}: chosen and rejected are equal up to {limit} in every row; raise it")
    if n_full:
        say(f"{label}: {n_full} of {len(rows)} rows left out, their prompts fill {limit}")
    if n_equal:
        say(f"{label}: {n_equal} of {len(rows)} rows left out, chosen and rejected are equal up to {limit}")
    say_cut(n_cut, len(kept), max_length, label)
    return Room(kept, n_full + n_equal, n_cut, n_tokens / len(kept))


def _last_whole_checkpoint(work: Path | None) -> str | None:
    """Return the newest checkpoint that was written to its end, None where there is none."""
    checkpoints = sort_checkpoints(str(work)) if work is not None and work.is_dir() else []
    # The trainer writes its state last; a checkpoint without it is of a run killed while writing.
    whole = [path for path in checkpoints if (Path(path) / "trainer_state.json").is_file()]
    return whole[-1] if whole else None


class _Watcher(TrainerCallback):
    """Shows a progress bar on `stack`, and stops at a loss that is not finite."""

    def __init__(self, stack: ExitStack, label: str) -> None:
        self._stack = stack
        self._label = label
        self._shown: Bar | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar, at the step of the checkpoint where there is one."""
        self._shown = self._stack.enter_context(bar(state.max_steps, self._label))
        self._shown.advance(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Check and show the loss of one step."""
        if not logs or "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(
                f"{self._label}: not finite at step {state.global_step} (loss {loss}, gradient norm {norm}). "
                "Lower experts.optimizer.learning_rate, or set base.dtype to fp32 or bf16 in place of fp16"
            )
        if self._shown is not None:
            self._shown.note(f"loss {loss:.3f}")
            self._shown.advance()
