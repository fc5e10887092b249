"""The experts merged into the weights of the base model, `merge:<method>`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from pydantic import ConfigDict

from mocae.bank import LoraWeights
from mocae.config.base import Config
from mocae.errors import ConfigError, unknown_name
from mocae.merging import MERGE_METHODS, Delta, MergeMethod, TaskVector, applied
from mocae.models import Generator, PlainModel
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import System, task_vectors

__all__ = ["Merge", "on_merged"]


class MergeOptions(Config):
    """Options of a `merge` system: those of the method, and which experts are merged."""

    model_config = ConfigDict(extra="allow")

    experts: list[str] | None = None
    """Axes to merge, in that order; null: all."""


class Merge(System):
    """The base model with the experts merged into its weights; options are the method's own."""

    Options = MergeOptions
    whole_weights = True

    def check(self) -> None:
        """Refuse a method or option that does not exist, and experts that are none."""
        method = self.method
        experts, options = self.experts, self.method_options
        if not experts or len(set(experts)) != len(experts):
            raise ConfigError(f"options.experts: got {experts!r}; give a list of axes, each once")
        weights = [options.get("weights") or {}, *(options.get("blocks") or [])]
        for name in (*experts, *(name for part in weights if isinstance(part, Mapping) for name in part)):
            if name not in self.axes:
                raise ConfigError(f"options: {unknown_name('expert', str(name), self.axes)}")
        try:
            method.check(options)
        except ConfigError as error:
            raise ConfigError(f"options: {error}") from error

    @property
    def method(self) -> MergeMethod:
        """The method behind the colon.

        Raises:
            PluginError: there is none of that name.
        """
        return MERGE_METHODS.get(self.argument or "")

    @property
    def experts(self) -> list[str]:
        """Axes that are merged, in order."""
        experts: list[str] | None = self.options.experts
        return list(self.axes) if experts is None else experts

    @property
    def method_options(self) -> dict[str, Any]:
        """Options of the method."""
        return dict(self.options.model_extra or {})

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return the experts that are merged, as "expert:<axis>"."""
        return {f"expert:{axis}": run.experts[axis] for axis in self.experts}

    def export_names(self) -> tuple[str, ...] | None:
        """Return None: a change of the weights."""
        return None

    def exported(self, made: Made) -> Mapping[str, LoraWeights] | Delta:
        """Return the change of the weights."""
        return self.method(self._vectors(made), **self.method_options)

    def load(self, made: Made) -> Generator:
        """Return the base model with merged weights."""
        change = self.exported(made)
        assert not isinstance(change, Mapping)
        return on_merged(made, change)

    def n_active(self, made: Made) -> int:
        """Return 0: what is merged adds nothing to the model."""
        return 0

    def warnings(self, made: Made) -> list[str]:
        """Return what the method says of its merge."""
        note = self.method.note
        return [] if note is None else [f"{self.name}: {note(self._vectors(made), **self.method_options)}"]

    def _vectors(self, made: Made) -> dict[str, TaskVector]:
        return task_vectors({axis: made.folders[f"expert:{axis}"] for axis in self.experts})


def on_merged(made: Made, change: Delta) -> Generator:
    """Return the base model with `change` in its weights, the original tensors back after `release`."""
    stack = ExitStack()
    stack.enter_context(applied(made.base.model, change))
    return PlainModel(made.base, on_release=stack.close)
