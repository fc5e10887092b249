"""The fair rival: joint training that learns from the same verdicts as the outcome-calibrated router."""

from __future__ import annotations

from collections.abc import Sequence

from mocae.config import JointOutcomesConfig, SystemConfig, rival_options
from mocae.evaluation import read_samples
from mocae.pipelines.contest import Contest
from mocae.pipelines.store import Stage, folder_name
from mocae.types import Example, Sample

__all__ = ["joint_outcomes"]


def joint_outcomes(contest: Contest, system: SystemConfig) -> Stage:
    """Return one adapter trained on the rows of all axes and on the accepted answers to the calibration prompts.

    Without it a win of the router over `joint` may be a win of extra supervision. `after` keeps the accepted answers
    from being outvoted by axis rows that contradict them: it is the stronger rival where axis data conflict.

    Raises:
        ConfigError: an option does not fit.
    """
    config: JointOutcomesConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    rows, accepted = contest.rows.all_of("train"), accepted_rows(contest)
    name = folder_name(system.name)
    with contest.bare():
        if config.schedule == "mixed":
            return contest.trainer.joint([*rows, *accepted], name=name)
        start = contest.trainer.joint(rows) if config.schedule == "after" else None
        return contest.trainer.joint(accepted, name=name, start=start)


def accepted_rows(contest: Contest) -> list[Example]:
    """Return one training row for each different accepted answer to a calibration prompt."""
    samples: Sequence[Sample] = list(read_samples(contest.outcomes.folder / "outcomes.jsonl"))
    rows: dict[tuple[str, str], Example] = {}
    for sample in samples:
        example, text = sample.answer.example, sample.answer.text
        if sample.acceptable and text.strip():
            row = Example(example.prompt, example.axis, example.probe, text, example.kind, example.group)
            rows.setdefault((example.id, text), row)
    return list(rows.values())
