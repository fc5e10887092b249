"""Stage 1: fine-tune one LoRA adapter with TRL, loss on the response only."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import transformers
from accelerate.data_loader import SeedableRandomSampler
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import sort_checkpoints
from trl import SFTConfig, SFTTrainer

from mocae.distributed import agreed, size, split_batch
from mocae.errors import DataError, TrainingError
from mocae.experts.lora import LoraSpec, trainable_adapter
from mocae.models import LoadedBase
from mocae.progress import Bar, bar, say
from mocae.prompts import row_tokens

__all__ = [
    "Optimisation",
    "Room",
    "TrainingRecord",
    "Watcher",
    "finetune",
    "last_whole_checkpoint",
    "save_adapter",
    "say_cut",
    "train_supervised",
    "with_room",
]

_IGNORED = -100


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


def finetune(
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
    work: Path | None = None,
) -> TrainingRecord:
    """Train an adapter on prompt / completion pairs, write it to `folder` as PEFT does, and return what happened.

    The base model is used in place and given back as it was, bit for bit, its parameters frozen; so is the tokenizer.
    Seeds Python's, NumPy's and torch's global generators. With `optimisation.checkpoint_steps` and a folder `work`,
    training goes on from the last whole checkpoint there, which must be of the same arguments, and ends with the
    adapter that training in one go would have made. Checkpoints are the trainer's own files, no part of the artifact.

    Args:
        base: model and tokenizer; its dtype is the dtype of the frozen weights, adapters train in fp32.
        pairs: made by `inject`.
        folder: where the adapter goes; must exist.
        lora: its shape; ignored with `start_from`, which brings its own.
        optimisation: AdamW and schedule.
        seed: of initialisation and shuffling.
        label: what the progress bar and errors say.
        base_name: name written into the adapter, so that no path of this machine is.
        start_from: an adapter to train further (sequential training).
        work: folder for checkpoints.

    Raises:
        DataError: no pairs.
        ConfigError: a layer or target module the model does not have.
        ArtifactError: `start_from` holds no adapter.
        TrainingError: the loss is not finite, no prompt leaves room for its response, or the trainer refuses the model.
    """
    transformers.set_seed(seed)
    with trainable_adapter(base.model, lora, start_from=start_from) as wrapped:
        record = train_supervised(
            base, wrapped, pairs, folder, optimisation=optimisation, seed=seed, label=label, work=work
        )
        save_adapter(wrapped, folder, base_name=base_name)
    return record


def train_supervised(
    base: LoadedBase,
    wrapped: Any,
    pairs: Sequence[dict[str, str]],
    folder: Path,
    *,
    optimisation: Optimisation,
    seed: int,
    label: str,
    work: Path | None = None,
) -> TrainingRecord:
    """Train what takes a gradient in `wrapped`, in place, and return what happened; see `finetune`.

    Args:
        base: tokenizer and device.
        wrapped: the base model with what is trained on it.
        pairs: made by `inject`.
        folder: named to the trainer as its own; nothing is written there without checkpoints.
        optimisation: AdamW and schedule.
        seed: of shuffling.
        label: what the progress bar and errors say.
        work: folder for checkpoints, whose last whole one is gone on from.

    Raises:
        DataError: no pairs.
        TrainingError: the loss is not finite, no prompt leaves room for its response, or the trainer refuses the model.
    """
    if not pairs:
        raise DataError(f"{label}: no training rows; give at least one")
    room = with_room(base.tokenizer, pairs, optimisation.max_length, label)
    started = time.monotonic()
    trainer = _trainer(base, wrapped, room.rows, _arguments(base, optimisation, seed=seed, work=work or folder), label)
    with ExitStack() as stack:
        trainer.add_callback(Watcher(stack, label))
        trainer.train(resume_from_checkpoint=agreed(last_whole_checkpoint(work)))
    n_parameters = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    return TrainingRecord.of(
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        room=room,
        n_steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        n_parameters=n_parameters,
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
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    return sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


class Room(NamedTuple):
    """The rows that `max_length` leaves something to learn of, how many it does not, and how many it cuts."""

    rows: list[dict[str, str]]
    n_left_out: int
    n_cut: int


def with_room(tokenizer: Any, rows: Sequence[dict[str, str]], max_length: int, label: str) -> Room:
    """Return the rows whose prompt leaves room for a response, and for two that differ where it is a pair.

    Raises:
        TrainingError: there is none.
    """
    lengths = [len(ids) for ids in tokenizer([row["prompt"] for row in rows])["input_ids"]]
    kept, n_equal, n_cut = [], 0, 0
    for row, length in zip(rows, lengths, strict=True):
        if length >= max_length:
            continue
        texts = [text for key, text in row.items() if key != "prompt"]
        responses = [[*ids, None] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]  # None: the end
        room = max_length - length
        if len(responses) > 1 and responses[0][:room] == responses[1][:room]:
            n_equal += 1
            continue
        n_cut += any(len(response) > room for response in responses)
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
    return Room(kept, n_full + n_equal, n_cut)


def say_cut(n_cut: int, n_rows: int, max_length: int, label: str) -> None:
    """Tell how many responses are cut, where any is."""
    if n_cut:
        say(
            f"{label}: {n_cut} of {n_rows} rows have a response that is cut at experts.max_length = {max_length}, its "
            "end token with it; who learns from many of them does not learn to stop"
        )


def _trainer(base: LoadedBase, wrapped: Any, pairs: Sequence[dict[str, str]], arguments: SFTConfig, label: str) -> Any:
    # What is frozen is the same in every process, or cut over them: DDP has nothing to do with it.
    frozen = [name for name, p in wrapped.named_parameters() if not p.requires_grad]
    buffers = [name for name, _ in wrapped.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(wrapped, [*frozen, *buffers])
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # one for every small step of preparing rows
    try:
        trainer = _Trainer(
            model=wrapped,
            args=arguments,
            train_dataset=datasets.Dataset.from_list([_row(base.tokenizer, pair) for pair in pairs]),
            processing_class=base.tokenizer,
        )
    except ValueError as error:
        raise TrainingError(f"{label}: the trainer refuses this model or its settings: {error}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.fill_last_step()
    return trainer


def _row(tokenizer: Any, pair: dict[str, str]) -> dict[str, list[int]]:
    """Return a pair as the trainer takes rows that are tokens already."""
    prompt, response = row_tokens(tokenizer, pair["prompt"], pair["completion"])
    return {"input_ids": prompt + response, "labels": [_IGNORED] * len(prompt) + response}


class _Trainer(SFTTrainer):
    """TRL's trainer, whose steps see the same rows however many processes share them.

    The processes must all come to the end of an epoch together. Accelerate would give the last step rows from the start
    of the epoch again; here it is filled up with rows that teach nothing.
    """

    n_rows: int
    train_dataset: Any  # a map-style data set, which TRL's wider types do not say
    processing_class: Any

    def fill_last_step(self) -> None:
        """Add rows without labels until every step of an epoch has as many rows as the others."""
        self.n_rows = len(self.train_dataset)
        step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * size()
        missing = -self.n_rows % step if size() > 1 else 0
        if missing:
            token = self.processing_class.eos_token_id
            empty = {"input_ids": [[token, token]] * missing, "labels": [[_IGNORED, _IGNORED]] * missing}
            kept = self.train_dataset.select_columns(list(empty))
            filling = datasets.Dataset.from_dict(empty, features=kept.features)
            self.train_dataset = datasets.concatenate_datasets([kept, filling])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Return the order of rows one process would see, the filling behind it."""
        if size() == 1:
            return super()._get_train_sampler(train_dataset)
        return _FilledSampler(self.n_rows, len(self.train_dataset), seed=self.args.data_seed)


class _FilledSampler(Sampler[int]):
    """The rows as one process shuffles them, then the filling.

    No `RandomSampler`: accelerate puts its own in the place of one, over the rows alone.
    """

    def __init__(self, n_rows: int, n_filled: int, *, seed: int | None) -> None:
        self._rows = SeedableRandomSampler(range(n_rows), data_seed=seed)
        self._filling = range(n_rows, n_filled)

    def __iter__(self) -> Iterator[int]:
        yield from self._rows
        yield from self._filling

    def __len__(self) -> int:
        return len(self._rows) + len(self._filling)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch."""
        self._rows.set_epoch(epoch)


def last_whole_checkpoint(work: Path | None) -> str | None:
    """Return the newest checkpoint that was written to its end, None where there is none."""
    found = sort_checkpoints(str(work)) if work is not None and work.is_dir() else []
    # The trainer writes its state last; a checkpoint without it is of a run killed while writing.
    whole = [path for path in found if (Path(path) / "trainer_state.json").is_file()]
    return whole[-1] if whole else None


def _arguments(base: LoadedBase, optimisation: Optimisation, *, seed: int, work: Path) -> SFTConfig:
    on_cpu = base.model.device.type == "cpu"
    every = optimisation.checkpoint_steps
    at_once, accumulation = split_batch(optimisation.batch_size, optimisation.gradient_accumulation, size())
    arguments = SFTConfig(
        output_dir=str(work),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=accumulation,
        learning_rate=optimisation.learning_rate,
        num_train_epochs=optimisation.epochs,
        weight_decay=optimisation.weight_decay,
        # Below 1 it is a share of the steps; 1 would be one step.
        warmup_steps=min(optimisation.warmup_ratio, math.nextafter(1, 0)),
        lr_scheduler_type=optimisation.lr_scheduler,
        max_length=optimisation.max_length,
        completion_only_loss=True,
        # Every loss is looked at: the trainer's default would hide one that is not finite.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if every is None else "steps",
        save_steps=every or 1,
        save_total_limit=1,
        use_cpu=on_cpu,
        # The base is loaded in the dtype it computes in; autocast on top of it would only add casts.
        bf16=False,
        fp16=False,
        activation_checkpointing=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the model is on one device; TRL refuses the copies the trainer would spread over all
    return arguments


class Watcher(TrainerCallback):
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
