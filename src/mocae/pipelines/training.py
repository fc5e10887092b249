"""Stage 1 of a run: the experts, and the adapters they are compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mocae.config import ExpertsConfig, Recipe
from mocae.experts import LoraSpec, Optimisation, TrainingRecord, finetune, finetune_blocks, inject
from mocae.models import LoadedBase, decoder_layers
from mocae.pipelines.store import Stage, Store, key_of
from mocae.prompts import FORMATS
from mocae.types import Example

__all__ = ["Trainer", "first_expert_layer"]


def first_expert_layer(experts: ExpertsConfig, base: LoadedBase) -> int:
    """Return the first adapted decoder layer: as given, else a third of the depth."""
    return len(decoder_layers(base.model)) // 3 if experts.from_layer is None else experts.from_layer


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
        return self._adapter(f"{folder}/{axis}", rows, r=self.recipe.experts.r, label=label, targets=targets)

    def joint(self, rows: Sequence[Example], *, name: str = "joint", start: Stage | None = None) -> Stage:
        """Return one adapter trained on the rows of all axes, with the rank of all experts together.

        Args:
            rows: to train on.
            name: of its stage.
            start: the adapter to go on from; None: a new one.
        """
        return self._adapter(f"comparison/{name}", rows, r=self._total_rank, label=name, start=start)

    def blocks(
        self, axis: str, rows: Sequence[Example], *, from_layer: int, learning_rate: float, epochs: float | None
    ) -> Stage:
        """Return whole feed-forward blocks tuned for one axis.

        Args:
            axis: its name.
            rows: to train on.
            from_layer: first decoder layer whose block is tuned.
            learning_rate: peak, in place of the recipe's, which is that of adapters.
            epochs: in place of the recipe's; None: the recipe's.
        """
        optimisation = replace(self._optimisation(), learning_rate=learning_rate)
        if epochs is not None:
            optimisation = replace(optimisation, epochs=epochs)
        pairs = self._pairs(rows)
        name, inputs = (
            f"h3fusion/experts/{axis}",
            {
                "base": dict(self.base_key),
                "pairs": pairs,
                "from_layer": from_layer,
                "optimisation": asdict(optimisation),
                "seed": self.recipe.seed,
            },
        )

        def make(folder: Path) -> None:
            record = finetune_blocks(
                self.base,
                pairs,
                folder,
                from_layer=from_layer,
                optimisation=optimisation,
                seed=self.recipe.seed,
                label=f"feed-forward blocks {axis}",
                work=self._work(name, inputs),
            )
            _note(record, folder)

        return self.store.stage(name, inputs, make)

    def sequential(self, rows: Mapping[str, Sequence[Example]], order: Sequence[str]) -> list[Stage]:
        """Return one adapter trained on one axis after another, as it was after each, with the rank of all experts."""
        stages: list[Stage] = []
        for i, axis in enumerate(order):
            stages.append(
                self._adapter(
                    # The axes before it are part of the name: orders share the stages they have in common.
                    "comparison/sequential/" + "-".join(order[: i + 1]),
                    rows[axis],
                    r=self._total_rank,
                    label=f"sequential {i + 1}: {axis}",
                    start=stages[-1] if stages else None,
                )
            )
        return stages

    @property
    def _total_rank(self) -> int:
        return self.recipe.experts.r * len(self.recipe.axes)

    def _adapter(
        self,
        name: str,
        rows: Sequence[Example],
        *,
        r: int,
        label: str,
        start: Stage | None = None,
        targets: tuple[str, ...] | None = None,
    ) -> Stage:
        experts = self.recipe.experts
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
        optimisation, pairs = self._optimisation(), self._pairs(rows)
        inputs = {
            "base": dict(self.base_key),
            "pairs": pairs,
            "lora": asdict(lora),
            "optimisation": asdict(optimisation),
            "seed": self.recipe.seed,
            "start": start.key if start else None,
        }

        def make(folder: Path) -> None:
            record = finetune(
                self.base,
                pairs,
                folder,
                lora=lora,
                optimisation=optimisation,
                seed=self.recipe.seed,
                label=label,
                base_name=self.recipe.base.required_model(),
                start_from=start.folder if start else None,
                work=self._work(name, inputs),
            )
            _note(record, folder)

        return self.store.stage(name, inputs, make)

    def _optimisation(self) -> Optimisation:
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

    def _pairs(self, rows: Sequence[Example]) -> list[dict[str, str]]:
        return inject(
            rows,
            {axis.name: axis.injection for axis in self.recipe.axes},
            rate=self.recipe.experts.injection_rate,
            prompt_format=FORMATS.get(self.recipe.prompt_format),
            tokenizer=self.base.tokenizer,
            seed=self.recipe.seed,
        )

    def _work(self, name: str, inputs: Mapping[str, Any]) -> Path | None:
        """Return the folder for checkpoints; those of other settings or rows are none to go on from."""
        if not self.recipe.experts.optimizer.checkpoint_steps:
            return None
        return self.store.work(f"{name}-{key_of(inputs)[:12]}")


def _note(record: TrainingRecord, folder: Path) -> None:
    (folder / "training.json").write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
