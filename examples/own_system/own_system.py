"""A system of one's own; `pip install -e examples/own_system`, then `systems: [base, nearest, alignx]` in a recipe."""

import json
from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file

from mocae.policies import Policy, PromptBatch, Reading
from mocae.stages import Made, Run, Stage, acceptable_by_prompt
from mocae.systems import BankSystem, LearningOptions, LearningSystem


class NearestOptions(LearningOptions):
    """What `options` of this system may hold in a recipe."""

    n: PositiveInt = 5
    """Calibration prompts that vote."""


class NearestPolicy(Policy):
    """From the hidden states of a prompt to one weight an expert."""

    def __init__(self, states: torch.Tensor, accepted: torch.Tensor, n: int, reads: Reading) -> None:
        self.states, self.accepted, self.n, self.reads = states, accepted, n, reads

    def route(self, batch: PromptBatch) -> torch.Tensor:
        """Return weight 1 for the expert with most accepted answers among the nearest prompts, (B, K)."""
        nearest = torch.cdist(batch.pooled, self.states).topk(min(self.n, len(self.states)), largest=False).indices
        votes = self.accepted[nearest].sum(1) + 1e-3 * self.accepted.mean(0)
        return torch.nn.functional.one_hot(votes.argmax(1), votes.shape[1]).float()


class Nearest(LearningSystem, BankSystem):
    """The expert that was right most often on the calibration prompts that are most alike."""

    Options = NearestOptions
    weights_mean = "shares"

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts, and the states of the calibration prompts with what was accepted of each expert."""
        routing = self.routing(run.recipe)

        def make(folder: Path) -> None:
            accepted = acceptable_by_prompt(run.verdicts(routing), [f"expert:{axis}" for axis in self.axes])
            rows = {i: accepted[row.id] for i, row in enumerate(run.rows.all_of("calibration")) if row.id in accepted}
            states, verdicts = run.features_read().calibration[list(rows)], torch.tensor(list(rows.values())).float()
            save_file({"states": states.contiguous(), "accepted": verdicts}, folder / "rows.safetensors")
            (folder / "reads.json").write_text(json.dumps({"layer": run.layer, "pool": run.recipe.features.pool}))

        inputs = {"used": sorted(run.verdict_ids(routing))}
        own = run.store.stage(f"nearest/{self.folder}", inputs, make, needs=(run.features, run.outcomes_for(routing)))
        return {**super().stages(run), "rows": own}

    def choose(self, made: Made) -> Policy:
        """Return the policy."""
        rows = load_file(made.folders["rows"] / "rows.safetensors")
        reads = Reading(**made.record("rows", "reads.json"))
        return NearestPolicy(rows["states"], rows["accepted"], self.options.n, reads)
