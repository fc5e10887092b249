"""Stage 1: fine-tune one LoRA adapter with TRL, loss on the response only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import transformers
from accelerate.data_loader import SeedableRandomSampler
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler
from trl import SFTConfig, SFTTrainer

from mocae.distributed import size
from mocae.errors import DataError
from mocae.experts.lora import LoraSpec, trainable_adapter
from mocae.experts.trainer import (
    Optimisation,
    TrainingRecord,
    at_most_of,
    save_adapter,
    train_with,
    training_arguments,
    with_room,
)
from mocae.models import LabelledRow, LoadedBase

__all__ = ["finetune", "train_supervised"]

_IGNORED = -100


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
    # What is frozen is the same in every process, or cut over them: DDP has nothing to do with it.
    frozen = [name for name, p in wrapped.named_parameters() if not p.requires_grad]
    buffers = [name for name, _ in wrapped.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(wrapped, [*frozen, *buffers])
    at_most = at_most_of(base, optimisation, room)
    arguments = training_arguments(
        SFTConfig, base, optimisation, seed=seed, work=work or folder, at_most=at_most, completion_only_loss=True
    )
    encoded = (
        LabelledRow.of(base.tokenizer, pair["prompt"], pair["completion"], optimisation.max_length)
        for pair in room.rows
    )
    rows = [{"input_ids": row.ids, "labels": row.labels} for row in encoded if row is not None]
    return train_with(
        _Trainer,
        wrapped,
        rows,
        arguments,
        tokenizer=base.tokenizer,
        room=room,
        label=label,
        work=work,
        at_most=at_most,
    )


class _Trainer(SFTTrainer):
    """TRL's trainer, whose steps see the same rows however many processes share them.

    The processes must all come to the end of an epoch together. Accelerate would give the last step rows from the start
    of the epoch again; here it is filled up with rows that teach nothing.
    """

    n_rows: int
    train_dataset: Any  # a map-style data set, which TRL's wider types do not say
    processing_class: Any

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._fill_last_step()

    def _fill_last_step(self) -> None:
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
        """Return the order of rows one process would see, the filling behind it; in parts of a step by length."""
        parts = self.args.gradient_accumulation_steps
        if size() > 1:
            return _FilledSampler(self.n_rows, len(self.train_dataset), seed=self.args.data_seed)
        if parts == 1:
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        step = parts * self.args.per_device_train_batch_size
        return _FilledSampler(self.n_rows, self.n_rows, seed=self.args.data_seed, lengths=lengths, step=step)


class _FilledSampler(Sampler[int]):
    """The rows as one process shuffles them, then the filling.

    With lengths, the rows of a step are sorted by them, so that those seen at once need little padding. No
    `RandomSampler`: accelerate puts its own in the place of one, over the rows alone.
    """

    def __init__(
        self, n_rows: int, n_filled: int, *, seed: int | None, lengths: Sequence[int] = (), step: int = 1
    ) -> None:
        self._rows = SeedableRandomSampler(range(n_rows), data_seed=seed)
        self._filling = range(n_rows, n_filled)
        self._lengths = lengths
        self._step = step

    def __iter__(self) -> Iterator[int]:
        order = list(self._rows)
        for start in range(0, len(order), self._step):
            some = order[start : start + self._step]
            yield from sorted(some, key=self._lengths.__getitem__) if self._lengths else some
        yield from self._filling

    def __len__(self) -> int:
        return len(self._rows) + len(self._filling)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle for this epoch."""
        self._rows.set_epoch(epoch)
