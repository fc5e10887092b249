"""A mixture's own answers, learned by one adapter: for software that can hold only one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mocae.config import Recipe, RoutingConfig, SystemConfig
from mocae.config.base import Config
from mocae.distributed import size
from mocae.errors import ConfigError, DataError
from mocae.evaluation import AnswerLog, answer_all, read_samples, write_samples
from mocae.stages.rows import long_prompts
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import System, build_system
from mocae.systems.joint import OneAdapter
from mocae.types import Example, Sample

__all__ = ["Distilled"]


class DistilledOptions(Config):
    """Options of a `distilled` system."""

    teacher: Annotated[str, Field(min_length=1)] = "alignx"
    """Whose answers are learned: a system of the recipe, or a kind of system that needs no options."""
    keep_cut: bool = False
    """Learn answers that generation.max_new_tokens cut too, as if they ended there."""


class Distilled(OneAdapter):
    """One adapter with the rank of all experts, tuned on a teacher's answers to the training prompts.

    No response and no verdict of those prompts is looked at. Answers that `generation.max_new_tokens` cut teach a wrong
    end and are left out, unless `keep_cut` says otherwise.

    Reference: Kim and Rush, *Sequence-Level Knowledge Distillation*, arXiv 1606.07947.
    """

    Options = DistilledOptions
    rival = False
    one_adapter = False

    def settled(self, recipe: Recipe) -> Config:
        """Return the options, once the teacher is known to be one."""
        self.teacher(recipe)
        return super().settled(recipe)

    def routing(self, recipe: Recipe) -> RoutingConfig | None:
        """Return how the teacher learns from verdicts."""
        return self.teacher(recipe).routing(recipe)

    def teacher(self, recipe: Recipe) -> System:
        """Return the system whose answers are learned.

        Raises:
            ConfigError: there is none of this name, or it can answer calibration and test prompts alone.
        """
        name, key = self.options.teacher, f"systems.{self.name}.options.teacher"
        named = [system for system in recipe.systems if system.name == name and name != self.name]
        config = named[0] if named else SystemConfig(name=name, policy=name)
        system = build_system(config, self.axes, where=key)
        if system.upper_bound or isinstance(system, Distilled):
            reason = system.upper_bound or "it learns from a teacher itself"
            raise ConfigError(f"{key}: {name!r} cannot be one: {reason}; name a system that answers any prompt")
        system.options = system.settled(recipe)
        return system

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the adapter.

        Raises:
            DataError: no answer of the teacher came to its end.
        """
        answered = self._answers(run)
        most = run.generation.max_new_tokens
        rows = [
            replace(sample.answer.example, response=sample.answer.text, facts={})
            for sample in read_samples(answered.folder / "samples.jsonl")
            if sample.answer.text.strip() and (self.options.keep_cut or sample.answer.n_tokens < most)
        ]
        if not rows:
            raise DataError(
                f"systems.{self.name}: no answer of {self.options.teacher!r} to a training prompt ends within "
                f"generation.max_new_tokens = {most}; raise it, set options.keep_cut, or leave this system out"
            )
        with run.bare():
            return {"adapter": run.trainer.joint(rows, name=self.folder, needs=[answered])}

    def _answers(self, run: Run) -> Stage:
        """Return the teacher's answers to the training prompts of all axes, `samples.jsonl`, without verdicts."""
        teacher = self.teacher(run.recipe)
        stages, prompts = teacher.stages(run), _asked(run)
        name = f"distilled/{self.folder}"
        inputs = {
            **run.base_key,
            "asked": [row.prompt for row in prompts],
            "generation": asdict(run.generation),
            "teacher": teacher.record(run.recipe),
            "roles": list(stages),
        }
        work = run.store.work(name, inputs, needs=stages.values())

        def make(folder: Path) -> None:
            with run.bare() as base:
                made = Made(base, self.axes, {role: stage.folder for role, stage in stages.items()})
                model = teacher.load(made)
                try:
                    answers, _ = answer_all(
                        model,
                        prompts,
                        prompt_format=run.prompt_format,
                        generation=run.generation,
                        label=f"answers {teacher.name} for {self.name}",
                        log=AnswerLog(work) if size() == 1 else None,
                    )
                finally:
                    model.release()
            write_samples([Sample(teacher.name, answer, {}, None) for answer in answers], folder / "samples.jsonl")

        return run.store.stage(name, inputs, make, needs=stages.values())


def _asked(run: Run) -> Sequence[Example]:
    """Return the training prompts that fit the model's context, each once."""
    rows = run.rows.all_of("train")
    long = long_prompts(run.recipe, run.base, rows)
    return list({row.id: row for row in rows if row.id not in long}.values())
