"""The oracle: for each test prompt an expert whose answer to it was accepted. An upper bound, not a method."""

from __future__ import annotations

from mocae.evaluation import read_samples
from mocae.policies import OraclePolicy, Policy
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import BankSystem, experts_alone

__all__ = ["Oracle"]


class Oracle(BankSystem):
    """The first expert whose answer was accepted; all alike where none was."""

    upper_bound = (
        "it chooses by the verdicts on the answers to the very prompts of the test, which nobody has for a new prompt"
    )

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts, and their judged answers as "answers:<axis>"."""
        answers = {f"answers:{axis}": stage for axis, stage in experts_alone(run).items()}
        return {**super().stages(run), **answers}

    def choose(self, made: Made) -> Policy:
        """Return the policy by verdict; an answer without one is not known to be accepted."""
        accepted: dict[str, list[bool]] = {}
        for axis in self.axes:
            for sample in read_samples(made.folders[f"answers:{axis}"] / "samples.jsonl"):
                accepted.setdefault(sample.answer.example.id, []).append(sample.acceptable is True)
        return OraclePolicy(accepted, len(self.axes))
