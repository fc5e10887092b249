"""Stage 1 on preferences: the response rather than the rejected one, by DPO through TRL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import transformers
from trl import DPOConfig, DPOTrainer

from mocae.data.rows import rejected_of
from mocae.errors import DataError
from mocae.experts.lora import LoraSpec, trainable_adapter
from mocae.experts.trainer import (
    Optimisation,
    TrainingRecord,
    save_adapter,
    train_with,
    training_arguments,
    with_room,
)
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
    triples = []
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
        triples.append({"prompt": pair["prompt"], "chosen": pair["completion"], "rejected": formatted})
    return triples


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
    transformers.set_seed(seed)
    arguments = training_arguments(
        DPOConfig,
        base,
        optimisation,
        seed=seed,
        work=work or folder,
        beta=beta,
        loss_type=["sigmoid", "sft"] if sft_weight else ["sigmoid"],
        loss_weights=[1.0, sft_weight] if sft_weight else None,
        disable_dropout=False,  # the adapter's own; PEFT switches it off with the adapter for the reference
    )
    with trainable_adapter(base.model, lora, start_from=start_from) as wrapped:
        record = train_with(
            DPOTrainer, wrapped, room.rows, arguments, tokenizer=base.tokenizer, room=room, label=label, work=work
        )
        save_adapter(wrapped, folder, base_name=base_name)
    return record
