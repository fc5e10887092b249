"""Stage 1: fine-tune one LoRA adapter with TRL, prompts injected, loss on the response only."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from mocae.errors import ConfigError, DataError, TrainingError
from mocae.models import LoadedBase, decoder_layers
from mocae.progress import Bar, bar
from mocae.prompts import PromptFormat
from mocae.types import Example

__all__ = ["LoraSpec", "Optimisation", "TrainingRecord", "finetune", "inject"]


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Shape of a LoRA adapter, in PEFT's words; `from_layer` is the first adapted decoder layer."""

    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    use_rslora: bool = False
    target_modules: str | tuple[str, ...] = "all-linear"
    from_layer: int = 0


@dataclass(frozen=True, slots=True)
class Optimisation:
    """AdamW and its schedule. `batch_size` counts rows a device sees at once, lengths are in tokens."""

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
    """What a fine-tuning run did: rows, optimiser steps, seconds, mean loss of the first and last tenth of the steps."""

    n_rows: int
    n_steps: int
    seconds: float
    first_loss: float
    last_loss: float
    n_parameters: int


def inject(
    rows: Sequence[Example],
    injections: dict[str, str],
    *,
    rate: float,
    prompt_format: PromptFormat,
    tokenizer: Any,
    seed: int,
) -> list[dict[str, str]]:
    """Return prompt / completion pairs; a share `rate` of the prompts carries the injected prompt of its row's axis.

    Raises:
        DataError: a row has no response.

    Reference: AlignX (arXiv 2602.07381), stage 1, prompt-injected fine-tuning.
    Deviation: the papers' code trains on the prompts; we train on the responses alone, and leave a share of the prompts
        bare, so that an expert also acts on prompts as users write them.
    """
    rng = random.Random(f"injection {seed}")
    pairs = []
    for row in rows:
        if row.response is None or not row.response.strip():
            raise DataError(f"{row.source}: a training row of axis {row.axis!r} has no response; training needs one")
        injection = injections[row.axis] if rng.random() < rate else None
        prompt = prompt_format.format_prompt(row.prompt, injection=injection, tokenizer=tokenizer)
        pairs.append({"prompt": prompt, "completion": prompt_format.format_response(row.response)})
    return pairs


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

    The base model is used in place and given back bit for bit. With `optimisation.checkpoint_steps` and a folder
    `work`, training goes on from the last checkpoint there; checkpoints are the trainer's own files and no part of
    the artifact.

    Args:
        base: model and tokenizer; its dtype is the dtype of the frozen weights, adapters train in fp32.
        pairs: made by `inject`.
        folder: where the adapter goes; must exist.
        lora: its shape; ignored with `start_from`, which brings its own.
        optimisation: AdamW and schedule.
        seed: of initialisation and shuffling.
        label: what the progress bar says.
        base_name: name written into the adapter, so that no path of this machine is.
        start_from: an adapter to train further (sequential training).
        work: folder for checkpoints.

    Raises:
        DataError: no pairs.
        TrainingError: the loss is not finite, or no prompt leaves room for its response.
    """
    if not pairs:
        raise DataError(f"{label}: no training rows; give at least one")
    kept = _with_room(base.tokenizer, pairs, optimisation.max_length, label)
    started = time.monotonic()
    transformers.set_seed(seed)
    wrapped = _with_adapter(base, lora, start_from)
    losses: list[float] = []
    try:
        with ExitStack() as stack:
            steps = _count_steps(len(kept), optimisation)
            watcher = _Watcher(stack.enter_context(bar(steps, label)), losses, label)
            trainer = SFTTrainer(
                model=wrapped,
                args=_arguments(base, optimisation, seed=seed, work=work or folder),
                train_dataset=datasets.Dataset.from_list(list(kept)),
                processing_class=base.tokenizer,
                callbacks=[watcher],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            checkpoint = get_last_checkpoint(str(work)) if work and work.is_dir() else None
            trainer.train(resume_from_checkpoint=checkpoint)
        # A name, not a path: the folder must mean the same on another machine.
        wrapped.peft_config["default"].base_model_name_or_path = base_name
        wrapped.save_pretrained(str(folder), safe_serialization=True)
        n_parameters = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    finally:
        _unwrap(base, wrapped)
    (folder / "README.md").unlink(missing_ok=True)
    tenth = max(1, len(losses) // 10)
    return TrainingRecord(
        n_rows=len(kept),
        n_steps=len(losses),
        seconds=round(time.monotonic() - started, 2),
        first_loss=sum(losses[:tenth]) / tenth if losses else math.nan,
        last_loss=sum(losses[-tenth:]) / tenth if losses else math.nan,
        n_parameters=n_parameters,
    )


def _with_room(
    tokenizer: Any, pairs: Sequence[dict[str, str]], max_length: int, label: str
) -> list[dict[str, str]]:
    """Drop pairs whose prompt alone fills the window: they would train nothing."""
    lengths = [len(ids) for ids in tokenizer([p["prompt"] for p in pairs])["input_ids"]]
    kept = [pair for pair, length in zip(pairs, lengths, strict=True) if length < max_length]
    if not kept:
        raise TrainingError(
            f"{label}: every prompt has at least max_length = {max_length} tokens, so no response is left to train on; "
            "raise experts.max_length"
        )
    return kept


def _with_adapter(base: LoadedBase, lora: LoraSpec, start_from: Path | None) -> Any:
    if start_from is not None:
        return PeftModel.from_pretrained(base.model, str(start_from), is_trainable=True)
    layers = decoder_layers(base.model)
    if lora.from_layer >= len(layers):
        raise ConfigError(
            f"experts.from_layer is {lora.from_layer}; the model has decoder layers 0 to {len(layers) - 1}"
        )
    targets = list(lora.target_modules)
    if lora.target_modules == "all-linear":
        # PEFT's own "all-linear" cannot be limited to some layers, so the names are given instead.
        linears = (name for name, module in layers[-1].named_modules() if isinstance(module, nn.Linear))
        targets = sorted({name.rpartition(".")[2] for name in linears})
    config = LoraConfig(
        r=lora.r,
        lora_alpha=int(lora.lora_alpha) if float(lora.lora_alpha).is_integer() else lora.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=lora.lora_dropout,
        use_rslora=lora.use_rslora,
        target_modules=targets,
        layers_to_transform=list(range(lora.from_layer, len(layers))) if lora.from_layer else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base.model, config)


def _unwrap(base: LoadedBase, wrapped: Any) -> None:
    wrapped.unload()
    # PEFT leaves its configuration on the base model, and a second adapter would warn about the first.
    if hasattr(base.model, "peft_config"):
        del base.model.peft_config
    base.model.requires_grad_(False).eval()
    base.model.config.use_cache = True


def _count_steps(n_rows: int, optimisation: Optimisation) -> int:
    batches = math.ceil(n_rows / optimisation.batch_size)
    return math.ceil(math.ceil(batches / optimisation.gradient_accumulation) * optimisation.epochs)


def _arguments(base: LoadedBase, optimisation: Optimisation, *, seed: int, work: Path) -> SFTConfig:
    on_cpu = base.model.device.type == "cpu"
    every = optimisation.checkpoint_steps
    steps = _count_steps(1, optimisation) if every is None else every
    return SFTConfig(
        output_dir=str(work),
        per_device_train_batch_size=optimisation.batch_size,
        gradient_accumulation_steps=optimisation.gradient_accumulation,
        learning_rate=optimisation.learning_rate,
        num_train_epochs=optimisation.epochs,
        weight_decay=optimisation.weight_decay,
        warmup_steps=optimisation.warmup_ratio,
        lr_scheduler_type=optimisation.lr_scheduler,
        max_length=optimisation.max_length,
        completion_only_loss=True,
        # Every loss is looked at: the trainer's default would hide one that is not finite.
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no" if every is None else "steps",
        save_steps=steps,
        save_total_limit=1,
        use_cpu=on_cpu,
        # The base is loaded in the dtype it computes in; autocast on top of it would only add casts.
        bf16=False,
        fp16=False,
        gradient_checkpointing=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
    )


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Moves the progress bar, keeps the losses, and stops at one that is not finite."""

    def __init__(self, shown: Bar, losses: list[float], label: str) -> None:
        self._shown = shown
        self._losses = losses
        self._label = label

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Check and keep the loss of one step."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss) or not math.isfinite(float(logs.get("grad_norm", 0.0))):
            raise TrainingError(
                f"{self._label}: the loss or its gradient is not finite at step {state.global_step} (loss {loss}). "
                "Lower experts.optimizer.learning_rate, or set base.dtype to fp32 or bf16 in place of fp16"
            )
        self._losses.append(loss)
        self._shown.note(f"loss {loss:.3f}")
        self._shown.advance()


