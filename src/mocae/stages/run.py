"""What the systems of a recipe are made from: experts, features, outcomes, answers, made when first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from safetensors.torch import save_file
from torch import Tensor

from mocae.bank import ExpertBank
from mocae.config import Recipe, RoutingConfig
from mocae.errors import ConfigError, DataError, unknown_name
from mocae.evaluation import (
    Generation,
    read_samples,
)
from mocae.experts import Pool, pooled_states
from mocae.files import read_json, read_tensors
from mocae.models import Generator, LoadedBase, base_fingerprint, pick_device, shard
from mocae.policies import Reading
from mocae.prompts import FORMATS, PromptFormat
from mocae.stages.answers import generation_of, write_answers
from mocae.stages.choosing import outcomes_by_margin
from mocae.stages.fitting import Features, Fitter
from mocae.stages.judging import Judges
from mocae.stages.rows import Rows, long_prompts
from mocae.stages.store import Stage, Store
from mocae.stages.training import Trainer, first_expert_layer
from mocae.types import Example, Sample

__all__ = ["Asked", "Made", "Run"]


@dataclass(slots=True)
class Made:
    """Finished stages a system is loaded from, in a run or long after it.

    Attributes:
        base: model and tokenizer, nothing attached to the model.
        axes: names of the axes, in the order of weights.
        folders: role -> folder, whole and as it was finished; the experts' roles are "expert:<axis>".
    """

    base: LoadedBase
    axes: tuple[str, ...]
    folders: Mapping[str, Path]
    _bank: ExpertBank | None = field(default=None, repr=False)

    def bank(self) -> ExpertBank:
        """Return the experts attached to the base model; the same bank at every call."""
        if self._bank is None:
            experts = {axis: self.folders[f"expert:{axis}"] for axis in self.axes}
            self._bank = ExpertBank.attach(self.base.model, experts)
        return self._bank

    def record(self, role: str, file: str = "training.json") -> Any:
        """Return what a JSON file of a stage holds."""
        return read_json(self.folders[role] / file)


@runtime_checkable
class Asked(Protocol):
    """What a run asks of a system; `mocae.systems.System` is one."""

    name: str

    @property
    def folder(self) -> str: ...  # noqa: D102 - one part of a path

    def stages(self, run: Run) -> Mapping[str, Stage]: ...  # noqa: D102 - what it is loaded from, by role

    def record(self, recipe: Recipe) -> Mapping[str, Any]: ...  # noqa: D102 - kind and settled options

    def routing(self, recipe: Recipe) -> RoutingConfig | None: ...  # noqa: D102 - how it learns from verdicts, if so

    def load(self, made: Made) -> Generator: ...  # noqa: D102 - the model that answers

    def alone(self, run: Run) -> Mapping[str, Stage]: ...  # noqa: D102 - answers of the experts it chooses among

    def n_active(self, made: Made) -> int: ...  # noqa: D102 - adapter parameters it uses


class Run:
    """One recipe on one base model. Stages shared by systems are made once, and only if a system needs them.

    Args:
        recipe: what to run.
        base: the base model, nothing attached to it.
        rows: all data.
        judges: of the recipe.
        store: where stages lie.
        systems: all that are compared: how many verdicts are asked for follows from them.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        base: LoadedBase,
        rows: Rows,
        judges: Judges,
        store: Store,
        systems: Sequence[Asked] = (),
    ) -> None:
        self.recipe = recipe
        self.base = base
        self.rows = rows
        self.judges = judges
        self.store = store
        learning = [routing for system in systems if (routing := system.routing(recipe)) is not None]
        self._limits = [routing.outcome.max_prompts for routing in learning if not _by_margin(routing)]
        self._learning = bool(learning)
        if any(rows.calibration.values()):
            for routing in learning:  # what has no calibration prompts shows now, not after training
                self._candidates(routing)
        self.base_key = {
            "fingerprint": base_fingerprint(base.model),
            "dtype": str(base.model.dtype),
            "description": base.description.digest,
        }
        self.n_base_parameters = sum(p.numel() for p in base.model.parameters())
        if recipe.base.shard:
            shard(base.model, pick_device(recipe.base.device))
        self.trainer = Trainer(recipe, base, store, self.base_key)
        self._bank: ExpertBank | None = None

    @cached_property
    def prompt_format(self) -> PromptFormat:
        """How prompts become text."""
        return FORMATS.get(self.recipe.prompt_format)

    @cached_property
    def generation(self) -> Generation:
        """How answers are generated."""
        return generation_of(self.recipe.generation, seed=self.recipe.seed)

    @cached_property
    def experts(self) -> Mapping[str, Stage]:
        """The trained experts by axis, in the order of weights."""
        return {axis: self.expert(axis) for axis in self.recipe.axis_names}

    def expert(self, name: str) -> Stage:
        """Return the expert of one axis: trained, or brought along."""
        axis = next(axis for axis in self.recipe.axes if axis.name == name)
        with self.bare():
            if axis.adapter is not None:
                return self.trainer.imported(name, axis.adapter)
            return self.trainer.expert(name, self.rows.train[name])

    @cached_property
    def layer(self) -> int:
        """Decoder layer whose input the router reads."""
        layer = self.recipe.features.layer
        return first_expert_layer(self.recipe.experts, self.base) if layer is None else layer

    def bank(self) -> ExpertBank:
        """Return the bank of all experts, attached."""
        if self._bank is None:
            folders = {axis: stage.folder for axis, stage in self.experts.items()}
            self._bank = ExpertBank.attach(self.base.model, folders)
        return self._bank

    @contextmanager
    def bare(self) -> Iterator[LoadedBase]:
        """Return a context in which nothing is attached to the base model."""
        self.close()
        yield self.base

    def close(self) -> None:
        """Take the bank off the base model, if it is on."""
        if self._bank is not None:
            self._bank.detach()
            self._bank = None

    @property
    def fitter(self) -> Fitter:
        """What features, outcomes and routers are made by, the bank attached."""
        return self.fitter_of(self.bank())

    def fitter_of(self, bank: ExpertBank) -> Fitter:
        """Return what makes them for the experts of an attached bank."""
        return Fitter(self.recipe, self.base, bank, self.store, self.layer, self.generation)

    @cached_property
    def probes(self) -> dict[str, Sequence[Example]]:
        """The prompts that describe each expert: its training rows, or for one brought along its calibration rows.

        Raises:
            DataError: an axis has neither, or none that fits the model's context.
        """
        probes: dict[str, Sequence[Example]] = {}
        for axis in self.recipe.axis_names:
            rows = self.rows.train[axis] or self.rows.calibration.get(axis, ())
            long = long_prompts(self.recipe, self.base, rows)
            probes[axis] = [row for row in rows if row.id not in long]
            if not probes[axis]:
                none = "no prompt that fits the model's context" if rows else "neither train nor calibration rows"
                raise DataError(f"axes.{axis}: {none}, so nothing describes its expert")
        return probes

    @cached_property
    def features(self) -> Stage:
        """Task features, latent space and states of the calibration prompts."""
        return self.fitter.features(self.probes, self.rows.all_of("calibration"), list(self.experts.values()))

    def features_read(self) -> Features:
        """Return what the features stage holds."""
        return self.fitter.read_features(self.features)

    @cached_property
    def outcomes(self) -> Stage:
        """Judged answers of every expert to the calibration prompts that some system may use the verdicts of."""
        wanted = self._asked_for()
        asked = [row for row in self.rows.all_of("calibration") if row.id in wanted]
        return self.fitter.outcomes(asked, self.judges, list(self.experts.values()))

    def _asked_for(self) -> frozenset[str]:
        """Return the calibration prompts whose verdicts a system uses that does not choose them by margin."""
        most = None if None in self._limits else max((n for n in self._limits if n is not None), default=None)
        if most is None and not self._limits and self._learning:
            return frozenset()
        return self.rows.verdict_ids(most, seed=self.recipe.seed)

    def all_are_judged(self) -> bool:
        """Return whether every calibration prompt is judged anyway, for some system of the run."""
        return {row.id for row in self.rows.all_of("calibration")} <= self._asked_for()

    def outcomes_for(self, routing: RoutingConfig) -> Stage:
        """Return the stage whose `outcomes.jsonl` has the verdicts that `routing.outcome` lets be used, or more."""
        limit = routing.outcome.max_prompts
        if not _by_margin(routing) or limit is None:
            return self.outcomes
        rows = {row.id: row for row in self.rows.all_of("calibration")}
        candidates = self._candidates(routing)
        return outcomes_by_margin(self, routing, [rows[i] for i in candidates], limit)

    def verdicts(self, routing: RoutingConfig) -> list[Sample]:
        """Return the judged answers of every expert to the calibration prompts that `routing.outcome` lets be used."""
        used = self.verdict_ids(routing)
        samples = read_samples(self.outcomes_for(routing).folder / "outcomes.jsonl") if used else ()
        return [sample for sample in samples if sample.answer.example.id in used]

    def verdict_ids(self, routing: RoutingConfig) -> frozenset[str]:
        """Return the calibration prompts whose verdicts `max_prompts`, `choice` and `leave_out` let be used.

        Raises:
            ConfigError: a probe to be left out has no calibration prompts.
        """
        if _by_margin(routing):
            return frozenset(read_json(self.outcomes_for(routing).folder / "chosen.json"))
        return frozenset(self._candidates(routing))

    def _candidates(self, routing: RoutingConfig) -> list[str]:
        """Return the prompts that may be used, spread over the axes; at most `max_prompts` unless chosen by margin."""
        limit = None if _by_margin(routing) else routing.outcome.max_prompts
        used = self.rows.in_turn(seed=self.recipe.seed)[:limit]
        probes = {row.id: row.probe for row in self.rows.all_of("calibration")}
        for name in routing.outcome.leave_out:
            if name not in probes.values():
                known = sorted(set(probes.values()))
                raise ConfigError(f"routing.outcome.leave_out: {unknown_name('probe of calibration', name, known)}")
        return [i for i in used if probes[i] not in routing.outcome.leave_out]

    def answers(self, system: Asked) -> Stage:
        """Return a system's judged answers to the test prompts, `samples.jsonl`, and what they cost, `cost.json`."""
        stages = system.stages(self)
        name, prompts = f"answers/{system.folder}", self.rows.all_of("test")
        inputs = {
            **self.base_key,
            "judges": self.judges.key,
            "asked": [[row.prompt, row.axis, row.probe, row.kind, row.group, dict(row.facts)] for row in prompts],
            "generation": asdict(self.generation),
            "system": system.record(self.recipe),
            "roles": list(stages),
        }
        alone = system.alone(self) if self.recipe.generation.reuse and not self.generation.do_sample else {}
        needs = (*stages.values(), *alone.values())
        work = self.store.work(name, inputs, needs=needs)

        def answer(folder: Path) -> None:
            with self.bare() as base:
                made = Made(base, self.recipe.axis_names, {role: stage.folder for role, stage in stages.items()})
                model = system.load(made)
                try:
                    write_answers(
                        folder,
                        model,
                        self.rows.all_of("test"),
                        self.judges.judges,
                        alone=alone,
                        pooled=self._test_states,
                        n_active=system.n_active(made),
                        system=system.name,
                        prompt_format=self.prompt_format,
                        generation=self.generation,
                        work=work,
                    )
                finally:
                    model.release()

        return self.store.stage(name, inputs, answer, needs=needs)

    def _test_states(self, reading: Reading) -> Tensor:
        """Return the pooled states of the test prompts where a policy reads, in their order, (N, P)."""
        shape, tokenizer = self.prompt_format, self.base.tokenizer
        texts = [
            shape.format_prompt(row.prompt, injection=None, tokenizer=tokenizer) for row in self.rows.all_of("test")
        ]
        inputs = {**self.base_key, "texts": texts, "reading": asdict(reading)}

        def make(folder: Path) -> None:
            pooled = pooled_states(
                self.base.model,
                tokenizer,
                texts,
                layer=reading.layer,
                pool=cast(Pool, reading.pool),
                label="prompts test",
            )
            save_file({"pooled": pooled.contiguous()}, str(folder / "states.safetensors"))

        stage = self.store.stage(f"states/{reading.layer}-{reading.pool}", inputs, make)
        return read_tensors(stage.folder / "states.safetensors")["pooled"]

    def __enter__(self) -> Run:
        """Return itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """Give the base model back as it was."""
        self.close()


def _by_margin(routing: RoutingConfig) -> bool:
    """Return whether prompts for verdicts are chosen in rounds; without a limit all are used, chosen or not."""
    return routing.outcome.choice == "margin" and bool(routing.outcome.max_prompts)
