"""The fair rival: joint training that learns from the same verdicts as the outcome-calibrated router."""

from __future__ import annotations

from mocae.config import JointOutcomesConfig, SystemConfig, rival_options
from mocae.errors import ConfigError
from mocae.evaluation import read_samples
from mocae.pipelines.contest import Contest
from mocae.pipelines.output import accepted
from mocae.pipelines.store import Stage, folder_name

__all__ = ["joint_outcomes"]


def joint_outcomes(contest: Contest, system: SystemConfig) -> Stage:
    """Return one adapter trained on the rows of all axes and on the accepted answers to the calibration prompts.

    Without it a win of the router over `joint` may be a win of extra supervision. `after` keeps the accepted answers
    from being outvoted by axis rows that contradict them: it is the stronger rival where axis data conflict.

    Raises:
        ConfigError: an option does not fit, or no answer was accepted.
    """
    config: JointOutcomesConfig = rival_options(system, contest.recipe.axis_names, where=f"systems.{system.name}")
    rows, used = contest.rows.all_of("train"), contest.verdict_ids(contest.recipe.routing)
    if not used:  # without verdicts it is joint training, whatever the schedule, and shares its adapter
        with contest.bare():
            return contest.trainer.joint(rows)
    learned = accepted(read_samples(contest.outcomes.folder / "outcomes.jsonl"), used)
    if not learned:
        raise ConfigError(
            f"systems.{system.name}: no accepted answer to learn from; look at outcomes.jsonl, raise "
            "routing.outcome.max_prompts, or leave this system out"
        )
    name = folder_name(system.name)
    with contest.bare():
        if config.schedule == "mixed":
            return contest.trainer.joint([*rows, *learned], name=name)
        start = contest.trainer.joint(rows) if config.schedule == "after" else None
        return contest.trainer.joint(learned, name=name, start=start)
