"""Stage 1 of a run: the experts, and the adapters they are compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mocae.bank import LoraWeights, load_peft, save_peft
from mocae.bank.adapters import CONFIG_FILE, WEIGHTS_FILE
from mocae.bank.build import bank_linears
from mocae.bank.gates import Gates
from mocae.config import BaseConfig, ExpertsConfig, Recipe
from mocae.data import checked_options
from mocae.errors import ConfigError, ModelMismatchError
from mocae.experts import (
    GIVEN_TO_TRAINERS,
    TRAINERS,
    LoraSpec,
    Optimisation,
    TrainingMethod,
    finetune,
    finetune_preference,
    inject,
    with_rejected,
)
from mocae.models import LoadedBase, decoder_layers
from mocae.prompts import FORMATS
from mocae.stages.store import Stage, Store
from mocae.types import Example

__all__ = ["Trainer", "adapter_folder", "first_expert_layer", "note_training", "refuse_another_base"]


def first_expert_layer(experts: ExpertsConfig, base: LoadedBase) -> int:
    """Return the first adapted decoder layer: as given, else a third of the depth."""
    return len(decoder_layers(base.model)) // 3 if experts.from_layer is None else experts.from_layer


def adapter_folder(adapter: str) -> Path:
    """Return the folder of an adapter: the one named, or its two files taken from the Hub.

    Raises:
        ConfigError: there is no such folder, and the Hub has no such repository.
    """
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        return folder
    if adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
        raise ConfigError(f"adapter {adapter!r}: no such folder; give a PEFT LoRA folder, or a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(adapter, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except Exception as error:  # network, login, no such repository: the hub's own words say which
        raise ConfigError(
            f"adapter {adapter!r}: no such folder, and the Hub does not give it ({type(error).__name__}: {error}). "
            "Give a PEFT LoRA folder or a Hub id (owner/name)"
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        return self._adapter(
            f"{folder}/{axis}",
            rows,
            r=self.recipe.experts.r,
            label=label,
            targets=targets,
            objective=objective,
            axis=axis,
        )

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
        digests = {name: _digest(source / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}

        def make(folder: Path) -> None:
            save_peft(expert, folder, base_model_name=self.recipe.base.required_model())
            record = {"imported": adapter, "n_parameters": expert.n_parameters}
            (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

        inputs = {"base": dict(self.base_key), "imported": digests}
        return self.store.stage(f"experts/{axis}", inputs, make, axis=axis)

    def joint(
        self, rows: Sequence[Example], *, name: str = "joint", start: Stage | None = None, needs: Sequence[Stage] = ()
    ) -> Stage:
        """Return one adapter trained on the rows of all axes, with the rank of all experts together.

        Args:
            rows: to train on.
            name: of its stage.
            start: the adapter to go on from; None: a new one.
            needs: the stages that rows were made from.
        """
        return self._adapter(
            f"comparison/{name}", rows, r=self._total_rank, label=name, start=start, needs=tuple(needs)
        )

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
                    axis=axis,
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
        objective: Literal["sft", "dpo"] = "sft",
        axis: str | None = None,
        needs: tuple[Stage, ...] = (),
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
        optimizer, optimisation = experts.optimizer, self.optimisation()
        pairs: list[dict[str, str]] = self.pairs(rows)
        inputs = {
            "base": dict(self.base_key),
            "pairs": pairs,
            "lora": asdict(lora),
            "optimisation": asdict(optimisation),
            "seed": self.recipe.seed,
        }
        # Only what departs from fine-tuning with gradients, so that experts made before are still known.
        if objective == "dpo":
            pairs = with_rejected(rows, pairs, prompt_format=FORMATS.get(self.recipe.prompt_format))
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
            if objective == "dpo":
                weights = experts.preference.model_dump()
                note_training(finetune_preference(self.base, pairs, folder, **weights, **shared), folder)
            else:
                train, options = (finetune, {}) if by_gradient else self._method()
                note_training(train(self.base, pairs, folder, **options, **shared), folder)

        return self.store.stage(name, inputs, make, needs=(*needs, *((start,) if start else ())), axis=axis)

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


def refuse_another_base(expert: LoraWeights, base: BaseConfig) -> None:
    """Do nothing if an adapter names no other base model: one of the same shape would take it, and answer nonsense.

    Names are compared by their last part: that of a Hub id, or of a folder.

    Raises:
        ModelMismatchError: it names another one.
    """
    ours = (base.required_model(), *base.known_as)
    if expert.base_model is None or _last_part(expert.base_model) in map(_last_part, ours):
        return
    raise ModelMismatchError(
        f"expert {expert.name!r} was trained on {expert.base_model!r} (base_model_name_or_path in {CONFIG_FILE}), and "
        f"base.model is {ours[0]!r}. Use that base model; if they are the same, say so: "
        f"--set 'base.known_as=[{expert.base_model}]'"
    )


def _last_part(name: str) -> str:
    """Return what tells models apart in a Hub id or a path."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].casefold()
