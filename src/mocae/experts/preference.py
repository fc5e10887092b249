"""Stage 1 on preferences: the response rather than the rejected one, by DPO through TRL."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import datasets
import transformers
from trl import DPOConfig, DPOTrainer

from mocae.data.rows import rejected_of
from mocae.errors import DataError, TrainingError
from mocae.experts.finetune import (
    Optimisation,
    TrainingRecord,
    Watcher,
    last_whole_checkpoint,
    save_adapter,
    with_room,
)
from mocae.experts.lora import LoraSpec, quiet_peft, trainable_adapter
from mocae.models import LoadedBase
from mocae.prompts import PromptFormat
from mocae.types import Example

__all__ = ["finetune_preference", "with_rejected"]


def with_rejected(
    rows: Sequence[Example], pairs: Sequence[Mapping[str, str]], *, prompt_format: PromptFormat
) -> list[dict[str, str]]:
    """Return prompt, chosen and rejected of each row.

    Args:
        rows: training rows, the rejected response in `facts["rejected"]` or `facts["unsafe"]`.
        pairs: what `inject` made of the same rows, in the same order.
        prompt_format: how responses are written.

    Raises:
        DataError: a row has no rejected response, or rejects what it chooses.
    """
    found = []
    for row, pair in zip(rows, pairs, strict=True):
        rejected = rejected_of(row)
        if not isinstance(rejected, str) or not rejected.strip():
            raise DataError(
                f"{row.source}: a row of axis {row.axis!r} has no rejected response, which objective dpo needs; use a "
                "source of pairs (beavertails-pairs, hh-rlhf, or examples with facts.rejected), or objective sft"
            )
        formatted = prompt_format.format_response(rejected)
        if formatted == pair["completion"]:
            raise DataError(f"{row.source}: chosen and rejected are the same response; nothing is preferred")
        found.append({"prompt": pair["prompt"], "chosen": pair["completion"], "rejected": formatted})
    return found


def finetune_preference(
    base: LoadedBase,
    triples: Sequence[dict[str, str]],
    folder: Path,
    *,
    lora: LoraSpec,
    optimisation: Optimisation,
    beta: float,
    sft_weight: float,
    seed: int,
    label: str,
    base_name: str,
    start_from: Path | None = None,
    work: Path | None = None,
) -> TrainingRecord:
    """Train an adapter to prefer `chosen` to `rejected`, write it to `folder`, and return what happened.

    The reference is the base model itself: the adapter switched off, so no second model is held. Arguments and
    promises are those of `finetune`; losses are of DPO, log 2 at the start.

    Args:
        base: see `finetune`.
        triples: made by `with_rejected`.
        folder: see `finetune`.
        lora: see `finetune`.
        optimisation: see `finetune`.
        beta: how much leaving the reference costs.
        sft_weight: weight of the likelihood of the chosen response, added to the loss.
        seed: see `finetune`.
        label: see `finetune`.
        base_name: see `finetune`.
        start_from: see `finetune`; the reference is then still the base model.
        work: see `finetune`.

    Raises:
        DataError: no rows.
        ConfigError, ArtifactError, TrainingError: see `finetune`.

    Reference: Rafailov et al., *Direct Preference Optimization*, arXiv 2305.18290, equation 7.
    """
    if not triples:
        raise DataError(f"{label}: no training rows; give at least one")
    room = with_room(base.tokenizer, triples, optimisation.max_length, label)
    started = time.monotonic()
    transformers.set_seed(seed)
    with trainable_adapter(base.model, lora, start_from=start_from) as wrapped:
        arguments = _arguments(base, optimisation, beta=beta, sft_weight=sft_weight, seed=seed, work=work or folder)
        trainer = _trainer(base, wrapped, room.rows, arguments, label)
        with ExitStack() as stack, quiet_peft():
            trainer.add_callback(Watcher(stack, label))
            trainer.train(resume_from_checkpoint=last_whole_checkpoint(work))
        n_parameters = save_adapter(wrapped, folder, base_name=base_name)
    return TrainingRecord.of(
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        room=room,
        n_steps=trainer.state.global_step,
        seconds=time.monotonic() - started,
        n_parameters=n_parameters,
    )


def _trainer(base: LoadedBase, wrapped: Any, rows: Sequence[dict[str, str]], arguments: DPOConfig, label: str) -> Any:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        trainer = DPOTrainer(
            model=wrapped,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(list(rows)),
            processing_class=base.tokenizer,
        )
    except ValueError as error:
        raise TrainingError(f"{label}: the trainer refuses this model or its settings: {error}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _arguments(
    base: LoadedBase, optimisation: Optimisation, *, beta: float, sft_weight: float, seed: int, work: Path
) -> DPOConfig:
    on_cpu = base.model.device.type == "cpu"
    every = optimisation.checkpoint_steps
    arguments = DPOConfig(
        output_dir=str(work),
        beta=beta,
        loss_type=["sigmoid", "sft"] if sft_weight else ["sigmoid"],
        loss_weights=[1.0, sft_weight] if sft_weight else None,
        per_device_train_batch_size=optimisation.batch_size,
        gradient_accumulation_steps=optimisation.gradient_accumulation,
        learning_rate=optimisation.learning_rate,
        num_train_epochs=optimisation.epochs,
        weight_decay=optimisation.weight_decay,
        warmup_steps=min(optimisation.warmup_ratio, math.nextafter(1, 0)),
        lr_scheduler_type=optimisation.lr_scheduler,
        max_length=optimisation.max_length,
        disable_dropout=False,  # the adapter's own; PEFT switches it off with the adapter for the reference
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if every is None else "steps",
        save_steps=every or 1,
        save_total_limit=1,
        use_cpu=on_cpu,
        bf16=False,
        fp16=False,
        activation_checkpointing=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # the model is on one device
    return arguments
