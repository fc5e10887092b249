"""Every system of a run answers the test prompts and is judged, each a stage of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mocae.bank import ExpertBank
from mocae.evaluation import (
    Cost,
    Generation,
    answer_all,
    judge_answers,
    read_samples,
    score_multiple_choice,
    write_samples,
)
from mocae.files import read_json
from mocae.judges import Judge
from mocae.models import Generator, LoadedBase, PlainModel
from mocae.pipelines.store import Stage, Store, folder_name
from mocae.policies import FixedPolicy, Mixture, Policy
from mocae.prompts import PromptFormat
from mocae.types import Example, Sample, Verdict

__all__ = ["Answered", "Examiner"]


@dataclass(frozen=True, slots=True)
class Answered:
    """A system's judged answers and what they cost; `n_active` counts the adapter parameters it uses."""

    samples: Sequence[Sample]
    cost: Cost
    n_active: int


@dataclass(frozen=True, slots=True)
class Examiner:
    """Asks systems the test prompts."""

    base: LoadedBase
    store: Store
    prompts: Sequence[Example]
    prompt_format: PromptFormat
    generation: Generation
    judges: Sequence[Judge]
    depends: Mapping[str, Any]

    def policy(
        self, system: str, bank: ExpertBank, policy: Policy, inputs: Mapping[str, Any], *, n_active: int
    ) -> Answered:
        """Return the answers of a policy over an attached bank."""

        def answer(folder: Path) -> None:
            self.examine(system, Mixture(self.base, bank, policy), folder, n_active)

        return self.stage(system, inputs, answer)

    def adapter(self, folder_name: str, adapter: Stage, *, system: str | None = None) -> Answered:
        """Return the answers of one adapter with weight 1; no bank may be attached.

        Args:
            folder_name: of its stage.
            adapter: a PEFT folder.
            system: name in the samples, if not the folder's.
        """
        name = system or folder_name

        def answer(folder: Path) -> None:
            bank = ExpertBank.attach(self.base.model, {"adapter": adapter.folder})
            try:
                mixture = Mixture(self.base, bank, FixedPolicy(torch.ones(1)), mixed=False)
                self.examine(name, mixture, folder, bank.n_parameters)
            finally:
                bank.detach()

        return self.stage(folder_name, {"adapter": adapter.key}, answer)

    def plain(self, system: str, *, injection: str | None = None) -> Answered:
        """Return the answers of the base model, with an instruction in front; no bank may be attached."""

        def answer(folder: Path) -> None:
            self.examine(system, PlainModel(self.base, injection=injection), folder, 0)

        return self.stage(system, {"plain": injection}, answer)

    def examine(self, system: str, model: Generator, folder: Path, n_active: int) -> None:
        """Ask, judge, and write `samples.jsonl` and `cost.json` into `folder`."""
        answers, cost = answer_all(
            model,
            self.prompts,
            prompt_format=self.prompt_format,
            generation=self.generation,
            label=f"answers {system}",
        )
        choices = self._choices(model)
        samples = judge_answers(system, answers, self.judges)
        samples = [replace(s, verdicts={**s.verdicts, **choices.get(s.answer.example.id, {})}) for s in samples]
        write_samples(samples, folder / "samples.jsonl")
        record = {"cost": asdict(cost), "n_active": n_active}
        (folder / "cost.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _choices(self, model: Generator) -> dict[str, dict[str, Verdict]]:
        """Return "mc1" and "mc2" by prompt for questions that come with choices."""
        questions = [row for row in self.prompts if {"mc1", "mc2"} <= row.facts.keys()]
        if not questions:
            return {}
        scored = score_multiple_choice(model, questions, prompt_format=self.prompt_format)
        return {row.id: verdicts for row, verdicts in zip(questions, scored, strict=True)}

    def stage(self, system: str, inputs: Mapping[str, Any], answer: Any) -> Answered:
        """Return the answers of a system, made by `answer(folder)` unless they are there for the same inputs."""
        asked = [[row.prompt, row.axis, row.probe, row.kind, row.group, dict(row.facts)] for row in self.prompts]
        depends = {**self.depends, **inputs, "asked": asked, "generation": asdict(self.generation)}
        stage = self.store.stage(f"answers/{folder_name(system)}", depends, answer)
        record = read_json(stage.folder / "cost.json")
        samples = list(read_samples(stage.folder / "samples.jsonl"))
        return Answered(samples, Cost(**record["cost"]), record["n_active"])
