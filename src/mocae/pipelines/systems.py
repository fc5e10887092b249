"""Every system of a run answers the test prompts and is judged, each a stage of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mocae.bank import ExpertBank
from mocae.evaluation import Cost, Generation, answer_all, judge_answers, read_samples, write_samples
from mocae.judges import Judge
from mocae.models import LoadedBase
from mocae.pipelines.store import Stage, Store
from mocae.policies import FixedPolicy, Mixture, Policy
from mocae.prompts import PromptFormat
from mocae.types import Example, Sample

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

    def policy(self, system: str, bank: ExpertBank, policy: Policy, inputs: Mapping[str, Any]) -> Answered:
        """Return the answers of a policy over an attached bank."""

        def answer(folder: Path) -> None:
            mixture = Mixture(self.base, bank, policy)
            active = 0 if system == "base" else bank.n_parameters
            self._examine(system, mixture, folder, active)

        return self._stage(system, inputs, answer)

    def adapter(self, system: str, adapter: Stage) -> Answered:
        """Return the answers of one adapter with weight 1; no bank may be attached."""

        def answer(folder: Path) -> None:
            bank = ExpertBank.attach(self.base.model, {system: adapter.folder})
            try:
                mixture = Mixture(self.base, bank, FixedPolicy(torch.ones(1)))
                self._examine(system, mixture, folder, bank.n_parameters, keep_weights=False)
            finally:
                bank.detach()

        return self._stage(system, {"adapter": adapter.key}, answer)

    def _examine(
        self, system: str, mixture: Mixture, folder: Path, n_active: int, *, keep_weights: bool = True
    ) -> None:
        answers, cost = answer_all(
            mixture,
            self.prompts,
            prompt_format=self.prompt_format,
            generation=self.generation,
            label=f"answers {system}",
        )
        if not keep_weights:
            answers = [type(a)(a.example, a.text, None, a.n_tokens) for a in answers]
        write_samples(judge_answers(system, answers, self.judges), folder / "samples.jsonl")
        record = {"cost": asdict(cost), "n_active": n_active}
        (folder / "cost.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _stage(self, system: str, inputs: Mapping[str, Any], answer: Any) -> Answered:
        asked = [[row.prompt, row.axis, row.probe, row.kind, row.group, dict(row.facts)] for row in self.prompts]
        depends = {**self.depends, **inputs, "asked": asked, "generation": asdict(self.generation)}
        stage = self.store.stage(f"answers/{system.replace(':', '__')}", depends, answer)
        record = json.loads((stage.folder / "cost.json").read_text(encoding="utf-8"))
        samples = list(read_samples(stage.folder / "samples.jsonl"))
        return Answered(samples, Cost(**record["cost"]), record["n_active"])
