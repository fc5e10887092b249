"""Stage 1 of a run: the experts, and the adapters they are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mocae.bank import load_peft, save_peft
from mocae.bank.build import bank_linears
from mocae.bank.gates import Gates
from mocae.config import ExpertsConfig, Objective, Recipe
from mocae.data import checked_options
from mocae.experts import (
    GIVEN_TO_TRAINERS,
    TRAINERS,
    LoraSpec,
    Optimisation,
    TrainingMethod,
    finetune,
    finetune_preference,
    inject,
    with_labels,
    with_rejected,
)
from mocae.models import LoadedBase, decoder_layers
from mocae.prompts import FORMATS
from mocae.stages.brought import adapter_digests, adapter_folder, refuse_another_base
from mocae.stages.learned import learned_rows
from mocae.stages.store import Stage, Store
from mocae.types import Example, Sample

__all__ = ["Lesson", "Trainer", "first_expert_layer", "note_training"]


def first_expert_layer(experts: ExpertsConfig, base: LoadedBase) -> int:
    """Return the first adapted decoder layer: as given, else a third of the depth."""
    return len(decoder_layers(base.model)) // 3 if experts.from_layer is None else experts.from_layer


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an adapter learns.

    Attributes:
        rows: to train on; those of dpo and kto as `with_rejected` and `with_labels` want them.
        objective: what of their responses is learned.
        start: the adapter to go on from; None: a new one.
        needs: the stages that rows were made from.
        learning_rate: peak; None: the recipe's.
    """

    rows: Sequence[Example]
    objective: Objective = "sft"
    start: Stage | None = None
    needs: tuple[Stage, ...] = ()
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Trainer:
    """Trains adapters of one recipe on one base model, each a stage of the store."""

    recipe: Recipe
    base: LoadedBase
    store: Store
    base_key: Mapping[str, Any]

    def expert(
        self, axis: str, rows: Sequence[Example], *, targets: tuple[str, ...] | None = None, folder: str = "experts"
    ) -> Stage:
        """Return the trained expert of one axis.

        Args:
            axis: its name.
            rows: to train on.
            targets: adapted modules in place of the recipe's.
            folder: where its stage lies.
        """
        label = f"expert {axis}" if targets is None else f"expert {axis} ({', '.join(targets)})"
        objective = self.recipe.objective(next(a for a in self.recipe.axes if a.name == axis))
        lesson, r = Lesson(rows, objective), self.recipe.experts.r
        return self._adapter(f"{folder}/{axis}", lesson, r=r, label=label, targets=targets, axis=axis)

    def imported(self, axis: str, adapter: str) -> Stage:
        """Return the expert of an axis that was brought along, as the run's own folder.

        Args:
            axis: its name.
            adapter: a PEFT LoRA folder, or a Hub id of one.

        Raises:
            ConfigError: the adapter is not there.
            ArtifactError: it is damaged.
            ModelMismatchError: it is more than a LoRA, or of another base model.
        """
        source = adapter_folder(adapter)
        expert = load_peft(source, name=axis)
        refuse_another_base(expert, self.recipe.base)
        bank_linears(self.base.model, {axis: expert}, gates=Gates(1))  # tells what does not fit before anything is run
        digests = adapter_digests(source)

        def make(folder: Path) -> None:
            save_peft(expert, folder, base_model_name=self.recipe.base.required_model())
            record = {"imported": adapter, "n_parameters": expert.n_parameters}
            (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

        inputs = {"base": dict(self.base_key), "imported": digests}
        return self.store.stage(f"experts/{axis}", inputs, make, axis=axis)

    def joint(self, rows: Sequence[Example], *, name: str = "joint", needs: Sequence[Stage] = ()) -> Stage:
        """Return one adapter trained on rows of all axes, with the rank of all experts together.

        Args:
            rows: to train on.
            name: of its stage.
            needs: the stages that rows were made from.
        """
        return self._adapter(f"comparison/{name}", Lesson(rows, needs=tuple(needs)), r=self.total_rank, label=name)

    def outcomes(
        self,
        samples: Iterable[Sample],
        name: str,
        *,
        r: int,
        objective: Objective = "sft",
        pairs_per_prompt: int = 3,
        rows: Sequence[Example] = (),
        start: Stage | None = None,
        needs: Sequence[Stage] = (),
        learning_rate: float | None = None,
    ) -> Stage:
        """Return an adapter trained on judged answers, see `mocae.stages.learned.learned_rows`.

        Args:
            samples: the judged answers, such as those of `Run.verdicts`.
            name: of its stage.
            r: its rank.
            objective: sft: accepted answers; dpo: these rather than rejected ones to the same prompt; kto: accepted
                and rejected answers, each by itself.
            pairs_per_prompt: most pairs of one prompt that dpo learns.
            rows: to train on as well, responses that are wanted.
            start: the adapter to go on from; None: a new one.
            needs: the stages that samples were made from.
            learning_rate: peak; None: the recipe's.

        Raises:
            ConfigError: nothing is to be learned of these verdicts.
        """
        learned = [*rows, *learned_rows(samples, objective, pairs_per_prompt=pairs_per_prompt)]
        lesson = Lesson(learned, objective, start, tuple(needs), learning_rate)
        return self._adapter(name, lesson, r=r, label=name.rpartition("/")[2])

    def sequential(self, rows: Mapping[str, Sequence[Example]], order: Sequence[str]) -> list[Stage]:
        """Return one adapter trained on one axis after another, as it was after each, with the rank of all experts."""
        stages: list[Stage] = []
        for i, axis in enumerate(order):
            stages.append(
                self._adapter(
                    # The axes before it are part of the name: orders share the stages they have in common.
                    "comparison/sequential/" + "-".join(order[: i + 1]),
                    Lesson(rows[axis], start=stages[-1] if stages else None),
                    r=self.total_rank,
                    label=f"sequential {i + 1}: {axis}",
                    axis=axis,
                )
            )
        return stages

    @property
    def total_rank(self) -> int:
        """Rank of all experts together."""
        return self.recipe.experts.r * len(self.recipe.axes)

    def _adapter(
        self,
        name: str,
        lesson: Lesson,
        *,
        r: int,
        label: str,
        targets: tuple[str, ...] | None = None,
        axis: str | None = None,
    ) -> Stage:
        experts, objective, start = self.recipe.experts, lesson.objective, lesson.start
        # The scaling stays what it is for one expert, so that a larger rank does not mean a larger step.
        growth = r / experts.r
        lora = LoraSpec(
            r=r,
            lora_alpha=experts.lora_alpha * (growth**0.5 if experts.use_rslora else growth),
            lora_dropout=experts.lora_dropout,
            use_rslora=experts.use_rslora,
            target_modules=targets or experts.target_modules,
            from_layer=first_expert_layer(experts, self.base),
        )
        optimizer, optimisation = experts.optimizer, self.optimisation()
        if lesson.learning_rate is not None:
            optimisation = replace(optimisation, learning_rate=lesson.learning_rate)
        pairs: list[dict[str, Any]] = self.pairs(lesson.rows)
        inputs = {
            "base": dict(self.base_key),
            "pairs": pairs,
            "lora": asdict(lora),
            "optimisation": asdict(optimisation),
            "seed": self.recipe.seed,
        }
        # Only what departs from fine-tuning with gradients, so that experts made before are still known.
        if objective != "sft":
            shaped = with_rejected if objective == "dpo" else with_labels
            pairs = shaped(lesson.rows, pairs, prompt_format=FORMATS.get(self.recipe.prompt_format))
            inputs |= {"pairs": pairs, "preference": experts.preference.model_dump()}
        by_gradient = optimizer.method == "adamw"
        if not by_gradient:
            inputs |= {"method": optimizer.method, "options": optimizer.options}

        def make(folder: Path) -> None:
            shared: dict[str, Any] = {
                "lora": lora,
                "optimisation": optimisation,
                "seed": self.recipe.seed,
                "label": label,
                "base_name": self.recipe.base.required_model(),
                "start_from": start.folder if start else None,
            }
            if by_gradient:
                shared |= {"work": self.work(name, inputs)}
            if objective != "sft":
                weights = experts.preference.model_dump()
                note_training(finetune_preference(self.base, pairs, folder, **weights, **shared), folder)
            else:
                train, options = (finetune, {}) if by_gradient else self._method()
                note_training(train(self.base, pairs, folder, **options, **shared), folder)

        return self.store.stage(name, inputs, make, needs=(*lesson.needs, *((start,) if start else ())), axis=axis)

    def _method(self) -> tuple[TrainingMethod, dict[str, Any]]:
        """Return a training method of another package, and its options as its signature types them."""
        optimizer = self.recipe.experts.optimizer
        method, what = TRAINERS.get(optimizer.method), f"training method {optimizer.method!r}"
        return method, checked_options(method, optimizer.options, what=what, given=GIVEN_TO_TRAINERS)

    def optimisation(self) -> Optimisation:
        """Return how the recipe trains."""
        experts, optimizer = self.recipe.experts, self.recipe.experts.optimizer
        return Optimisation(
            learning_rate=optimizer.learning_rate,
            epochs=optimizer.epochs,
            batch_size=optimizer.batch_size,
            gradient_accumulation=optimizer.gradient_accumulation,
            weight_decay=optimizer.weight_decay,
            warmup_ratio=optimizer.warmup_ratio,
            lr_scheduler=optimizer.lr_scheduler,
            max_length=experts.max_length,
            checkpoint_steps=optimizer.checkpoint_steps,
        )

    def pairs(self, rows: Sequence[Example]) -> list[dict[str, str]]:
        """Return prompts and responses as they are trained on, some with the injected prompt in front."""
        return inject(
            rows,
            {axis.name: axis.injection for axis in self.recipe.axes},
            rate=self.recipe.experts.injection_rate,
            prompt_format=FORMATS.get(self.recipe.prompt_format),
            tokenizer=self.base.tokenizer,
            seed=self.recipe.seed,
        )

    def work(self, name: str, inputs: Mapping[str, Any]) -> Path | None:
        """Return the folder for checkpoints; those of other settings or rows are none to go on from."""
        if not self.recipe.experts.optimizer.checkpoint_steps:
            return None
        return self.store.work(name, inputs)


def note_training(record: Any, folder: Path) -> None:
    """Write a record of a training, a dataclass, into the folder of its stage."""
    (folder / "training.json").write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
