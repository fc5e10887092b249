"""The stage of a system's answers: how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mocae.config import GenerationConfig
from mocae.evaluation import (
    Chosen,
    Cost,
    Generation,
    examine,
    examine_chosen,
    read_samples,
    score_multiple_choice,
    write_samples,
)
from mocae.files import read_json
from mocae.judges import Judge
from mocae.models import Generator
from mocae.policies import Mixture, Reading
from mocae.prompts import PromptFormat
from mocae.stages.store import Stage
from mocae.types import Example, Sample

__all__ = ["Answered", "generation_of", "read_answers", "write_answers"]


@dataclass(frozen=True, slots=True)
class Answered:
    """A system's judged answers and what they cost; `n_active` counts the adapter parameters it uses."""

    samples: Sequence[Sample]
    cost: Cost
    n_active: int


def write_answers(
    folder: Path,
    model: Generator,
    prompts: Sequence[Example],
    judges: Sequence[Judge],
    *,
    alone: Mapping[str, Stage],
    pooled: Callable[[Reading], Tensor],
    n_active: int,
    system: str,
    prompt_format: PromptFormat,
    generation: Generation,
    work: Path,
) -> None:
    """Have a model answer prompts, judge the answers, and write them and their cost into a folder.

    Args:
        folder: of the stage.
        model: what answers.
        prompts: of the test split.
        judges: see `examine_chosen`.
        alone: expert -> the stage of its own answers, see `examine_chosen`; empty: everything is generated.
        pooled: where a policy reads -> states of the prompts there.
        n_active: adapter parameters in use.
        system: name of what answers.
        prompt_format: see `examine_chosen`.
        generation: see `examine_chosen`.
        work: see `examine_chosen`.
    """
    asked: dict[str, Any] = {
        "system": system,
        "prompt_format": prompt_format,
        "generation": generation,
        "label": f"answers {system}",
        "work": work,
    }
    if alone and isinstance(model, Mixture):
        known = {name: {s.answer.example.id: s for s in read_answers(stage).samples} for name, stage in alone.items()}
        with model.bank.off():
            states = torch.zeros(len(prompts), 0) if model.policy.reads is None else pooled(model.policy.reads)
        chosen = examine_chosen(model, prompts, judges, alone=known, pooled=states, **asked)
    else:
        chosen = Chosen(*examine(model, prompts, judges, **asked))
    samples = chosen.samples
    questions = [row for row in prompts if {"mc1", "mc2"} <= row.facts.keys() and row.id not in chosen.taken]
    if questions:
        scored = score_multiple_choice(model, questions, prompt_format=prompt_format)
        choices = {row.id: verdicts for row, verdicts in zip(questions, scored, strict=True)}
        samples = [replace(s, verdicts={**s.verdicts, **choices.get(s.answer.example.id, {})}) for s in samples]
    write_samples(samples, folder / "samples.jsonl")
    record = {
        "cost": asdict(chosen.cost),
        "n_active": n_active,
        "reused": {"n_prompts": len(chosen.taken), "same": chosen.same},
    }
    (folder / "cost.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def generation_of(config: GenerationConfig, *, seed: int) -> Generation:
    """Return how answers are generated, as a recipe or a suite says it."""
    return Generation(
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        do_sample=config.do_sample,
        temperature=config.sampling_temperature,
        top_p=config.top_p,
        seed=seed,
    )


def read_answers(stage: Stage) -> Answered:
    """Return what an answers stage holds."""
    record = read_json(stage.folder / "cost.json")
    samples = list(read_samples(stage.folder / "samples.jsonl"))
    return Answered(samples, Cost(**record["cost"]), record["n_active"])
