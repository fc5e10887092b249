"""Training on preferences: responses rather than rejected ones, by DPO on pairs or KTO on single ones, through TRL."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from mocae.data.rows import rejected_of
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
from mocae.models import LoadedBase
from mocae.prompts import PromptFormat
from mocae.types import Example

__all__ = ["finetune_preference", "with_labels", "with_rejected"]


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


def with_labels(
    rows: Sequence[Example], pairs: Sequence[Mapping[str, str]], *, prompt_format: PromptFormat
) -> list[dict[str, Any]]:
    """Return prompt, completion and label of each response, the label False for one to be avoided.

    Args:
        rows: training rows. Their responses are wanted unless `facts["wanted"]` is False; a rejected response
            beside one (see `with_rejected`) is to be avoided.
        pairs: what `inject` made of the same rows, in the same order.
        prompt_format: how responses are written.

    Raises:
        DataError: all responses are wanted, or none is.
    """
    labelled: dict[tuple[str, str], bool] = {}
    for row, pair in zip(rows, pairs, strict=True):
        labelled[pair["prompt"], pair["completion"]] = bool(row.facts.get("wanted", True))
        rejected = rejected_of(row)
        if isinstance(rejected, str) and rejected.strip():
            labelled.setdefault((pair["prompt"], prompt_format.format_response(rejected)), False)
    if len(set(labelled.values())) < 2:
        found = "no response at all" if not labelled else f"{'only' if all(labelled.values()) else 'no'} wanted ones"
        raise DataError(
            f"{rows[0].source if rows else 'no rows'}: objective kto needs wanted responses and others, got {found}; "
            "use rows with rejected responses, or objective sft"
        )
    return [{"prompt": p, "completion": c, "label": label} for (p, c), label in labelled.items()]


def finetune_preference(
    base: LoadedBase,
    rows: Sequence[dict[str, Any]],
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
    """Train an adapter to prefer some responses to others, write it to `folder`, and return what happened.

    Rows with `chosen` and `rejected` train by DPO, rows with a `label` by KTO. The reference is the model as training
    finds it: the base model, or it with the adapter of `start_from`. Arguments and promises are those of `finetune`;
    losses are log 2 (DPO) and about 0.5 (KTO) at the start.

    Args:
        base: see `finetune`.
        rows: made by `with_rejected` or `with_labels`.
        folder: see `finetune`.
        lora: see `finetune`.
        optimisation: see `finetune`; KTO compares the rows of a batch with one another, so it needs two at once.
        beta: how much leaving the reference costs.
        sft_weight: weight of the likelihood of the chosen response, added to the loss of DPO.
        seed: see `finetune`.
        label: see `finetune`.
        base_name: see `finetune`.
        start_from: see `finetune`.
        work: see `finetune`.

    Raises:
        DataError: no rows.
        ConfigError, ArtifactError, TrainingError: see `finetune`.

    Reference: Rafailov et al., *Direct Preference Optimization*, arXiv 2305.18290, equation 7; Ethayarajh et al.,
    *KTO*, arXiv 2402.01306, equations 7 and 8 (the rarer kind of response weighs as much as the other).
    """
    if not rows:
        raise DataError(f"{label}: no training rows; give at least one")
    rows = list(rows)
    unpaired = "label" in rows[0]
    if unpaired:  # KTO's trainer goes through the rows in order
        random.Random(seed).shuffle(rows)
    room = with_room(base.tokenizer, rows, optimisation.max_length, label)
    transformers.set_seed(seed)
    own = _of_kto(room.rows) if unpaired else _of_dpo(sft_weight)
    at_most = at_most_of(base, optimisation, room)
    if at_most is not None:  # a pair is by itself, so one at once is the same; KTO compares all with one another
        at_most = optimisation.batch_size if unpaired else 1
    arguments = training_arguments(
        KTOConfig if unpaired else DPOConfig,
        base,
        optimisation,
        seed=seed,
        work=work or folder,
        at_most=at_most,
        beta=beta,
        disable_dropout=False,  # the adapter's own; PEFT switches it off with the adapter for the reference
        **own,
    )
    trainer = KTOTrainer if unpaired else DPOTrainer
    with trainable_adapter(base.model, lora, start_from=start_from) as wrapped:
        record = train_with(
            trainer,
            wrapped,
            room.rows,
            arguments,
            tokenizer=base.tokenizer,
            room=room,
            label=label,
            work=work,
            at_most=at_most,
        )
        save_adapter(wrapped, folder, base_name=base_name)
    return record


def _of_dpo(sft_weight: float) -> dict[str, Any]:
    if not sft_weight:
        return {"loss_type": ["sigmoid"]}
    return {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, sft_weight]}


def _of_kto(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    wanted = max(1, sum(row["label"] for row in rows))
    others = max(1, len(rows) - wanted)
    return {"desirable_weight": max(1.0, others / wanted), "undesirable_weight": max(1.0, wanted / others)}
