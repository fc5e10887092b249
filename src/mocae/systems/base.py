"""What a system is: one class that says what it is made from, how it is loaded, and what it can be used for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from mocae.bank import LoraWeights, load_peft
from mocae.config import SYSTEMS, BaseConfig, Recipe, RoutingConfig, SystemConfig, override_model
from mocae.config.base import Config
from mocae.errors import ConfigError, unknown_name
from mocae.merging import Delta, TaskVector
from mocae.models import Generator
from mocae.policies import Mixture, Policy
from mocae.stages.base_size import BaseSize
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage, folder_name
from mocae.stages.training_plan import TrainingPlan

__all__ = [
    "SYSTEMS",
    "BankSystem",
    "NoOptions",
    "System",
    "build_system",
    "build_systems",
    "experts_alone",
    "task_vectors",
    "with_values",
]


class NoOptions(Config):
    """A system without options."""


class System(ABC):
    """Something that answers prompts: measured in a run, and loaded, served and exported afterwards.

    A subclass is registered under the name that a recipe gives as `policy`, by the entry point group `mocae.systems`.
    What a run measures and what is loaded later come from the same `load`, so they give the same answers.

    Args:
        config: name, policy and options, as in a recipe.
        axes: names of the axes, in the order of weights.

    Raises:
        ConfigError: the argument behind the colon of `policy`, or an option, does not fit; it begins with the key.

    Attributes:
        Options: what `options` in a recipe may hold.
        upper_bound: why it cannot be used after a run; None: it can.
        whole_weights: whether it needs every weight of the base model whole and unpacked, so no `base.shard`.
        weights_mean: what the weights it gives a prompt are: "chances" of an acceptable answer, whose calibration is
            measured; "shares" of the experts; None: the same for all prompts, or none.
        rival: whether an ablation compares every other system with it.
        one_adapter: whether it is one adapter trained on all axes, the plain rival of every mixture.
        uses_verdicts: whether verdicts that it is made from shape its answers; False: they set its confidence alone.
    """

    Options: ClassVar[type[Config]] = NoOptions
    upper_bound: ClassVar[str | None] = None
    whole_weights: ClassVar[bool] = False
    weights_mean: ClassVar[Literal["chances", "shares"] | None] = None
    rival: ClassVar[bool] = False
    one_adapter: ClassVar[bool] = False
    uses_verdicts: ClassVar[bool] = True

    def __init__(self, config: SystemConfig, axes: tuple[str, ...]) -> None:
        self.name = config.name
        self.policy = config.policy
        self.kind, colon, argument = config.policy.partition(":")
        self.argument = argument if colon else None
        self.axes = axes
        self.options: Any = self.parse(dict(config.options))
        self.check()

    def parse(self, options: dict[str, Any]) -> Config:
        """Return the options of a recipe as `Options`.

        Raises:
            ConfigError: one does not exist or does not fit.
        """
        if self.Options.model_config.get("extra") != "allow":
            for key in options:
                if key not in self.Options.model_fields:
                    known = self.Options.model_fields
                    raise ConfigError(f"options.{key}: {unknown_name(f'option of {self.kind!r}', key, known)}")
        return override_model(self.Options(), options, where="options")

    def check(self) -> None:
        """Do nothing if argument and options fit each other and the axes.

        Raises:
            ConfigError: they do not; it begins with the key, as in "options.order: ...".
        """
        if self.argument is not None:
            raise ConfigError(f"policy: {self.kind!r} takes nothing behind a colon, got {self.argument!r}")

    @property
    def about(self) -> str:
        """One line on what it is, for readers who know no code."""
        return SYSTEMS.describe()[self.kind].replace("expert:<axis>", self.policy)

    @property
    def folder(self) -> str:
        """Its name as one part of a path."""
        return folder_name(self.name)

    @abstractmethod
    def stages(self, run: Run) -> dict[str, Stage]:
        """Return by role the stages it is loaded from, made unless they are there."""

    @abstractmethod
    def load(self, made: Made) -> Generator:
        """Return the model that answers, on `made.base`, which its `release` gives back as it was."""

    def n_active(self, made: Made) -> int:
        """Return the adapter parameters it uses: by default those of every stage that records them."""
        records = [made.record(role) for role, path in made.folders.items() if (path / "training.json").is_file()]
        return sum(int(record.get("n_parameters", 0)) for record in records)

    def settled(self, recipe: Recipe) -> Config:
        """Return the options it runs with: its own, and the recipe's where it has none."""
        options: Config = self.options
        return options

    def record(self, recipe: Recipe) -> dict[str, Any]:
        """Return policy and settled options as JSON values, from which it is built again."""
        return {"policy": self.policy, "options": self.settled(recipe).model_dump(mode="json")}

    def routing(self, recipe: Recipe) -> RoutingConfig | None:
        """Return how it learns from the verdicts on calibration prompts; None: it does not."""
        return None

    def on_the_way(self, run: Run) -> dict[str, Stage]:
        """Return axis -> answers after it was trained, for a system that is trained axis after axis."""
        return {}

    def alone(self, run: Run) -> Mapping[str, Stage]:
        """Return expert -> its own answers to the test prompts, where it gives whole prompts to single experts."""
        return {}

    def warnings(self, made: Made) -> list[str]:
        """Return what a reader of the report must know."""
        return []

    def refuse_base(self, base: BaseConfig) -> str | None:
        """Return why it cannot be had on a base model loaded like this, None where it can."""
        if not (self.whole_weights and base.shard):
            return None
        return (
            f"{self.policy!r} needs every weight of the base model whole, and base.shard cuts them over the processes; "
            "leave this system out, or run without base.shard"
        )

    def trains(self, recipe: Recipe, base: BaseSize, n_rows: int | None) -> TrainingPlan | None:
        """Return what it trains beside the experts, on `n_rows` rows of all axes; None: nothing."""
        return None

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return what stands for it in other software: adapters by name, or a change of the base weights.

        Raises:
            ConfigError: other software cannot express it; the message says why.
        """
        raise ConfigError(
            f"{self.name!r} cannot be exported: it weighs experts token by token inside the model, which no export "
            "format can express; serve it with `mocae serve`"
        )

    def export_names(self) -> tuple[str, ...] | None:
        """Return the names of the adapters that `exported` gives; None: it gives a change of the base weights.

        Raises:
            ConfigError: other software cannot express it; the message says why.
        """
        raise ConfigError(
            f"{self.name!r} cannot be exported: it weighs experts token by token inside the model, which no export "
            "format can express; serve it with `mocae serve`"
        )

    def constant_weights(self) -> dict[str, float] | None:
        """Return the weights of its adapters, where they are the same for every prompt."""
        return None


class BankSystem(System):
    """A policy over the bank of the run's experts.

    Its stages are the experts and what a subclass adds; the server answers all systems of this kind in one batch.
    """

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts, as "expert:<axis>"."""
        return {f"expert:{axis}": stage for axis, stage in run.experts.items()}

    @abstractmethod
    def choose(self, made: Made) -> Policy:
        """Return the policy."""

    def load(self, made: Made) -> Generator:
        """Return the mixture of the experts under the policy."""
        return Mixture(made.base, made.bank(), self.choose(made))

    def alone(self, run: Run) -> Mapping[str, Stage]:
        """Return the answers of every expert, unless the weights are the same for every prompt."""
        return {} if self.constant_weights() is not None else experts_alone(run)

    def export_names(self) -> tuple[str, ...] | None:
        """Return the axes."""
        return self.axes

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return the experts."""
        return {axis: load_peft(made.folders[f"expert:{axis}"], name=axis) for axis in self.axes}


def build_system(config: SystemConfig, axes: tuple[str, ...], *, where: str = "") -> System:
    """Return a system of a recipe.

    Args:
        config: name, policy and options.
        axes: names of the axes, in the order of weights.
        where: key of the system, which opens the message, such as "systems.3".

    Raises:
        PluginError: no such kind of system.
        ConfigError: argument or options do not fit.
    """
    make: type[System] = SYSTEMS.get(config.policy.partition(":")[0])
    try:
        return make(config, axes)
    except ConfigError as error:
        raise ConfigError(f"{where or f'systems.{config.name}'}.{error}") from error


def build_systems(recipe: Recipe, configs: Iterable[SystemConfig] | None = None) -> list[System]:
    """Return systems of a recipe in order, with the options they run with; errors as in `build_system`.

    Args:
        recipe: whose settings hold where a system has none of its own.
        configs: some of its systems; None: all.
    """
    systems = []
    for config in recipe.systems if configs is None else configs:
        system = build_system(config, recipe.axis_names)
        system.options = system.settled(recipe)
        systems.append(system)
    return systems


def experts_alone(run: Run) -> dict[str, Stage]:
    """Return axis -> the judged answers of its expert to the test prompts."""
    axes = run.recipe.axis_names
    kinds = {axis: f"expert:{axis}" for axis in axes}
    return {axis: run.answers(build_system(SystemConfig(name=kind, policy=kind), axes)) for axis, kind in kinds.items()}


def with_values(options: Config, **values: Any) -> Config:
    """Return options with some values replaced."""
    return options.model_copy(update=values)


def task_vectors(folders: Mapping[str, Any]) -> dict[str, TaskVector]:
    """Return the task vector of each expert by its axis, from folders of PEFT LoRAs."""
    return {axis: TaskVector.from_lora(load_peft(folder, name=axis)) for axis, folder in folders.items()}
