"""Systems that give every prompt the same weights of the experts."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mocae.config.base import Config
from mocae.errors import ConfigError, unknown_name
from mocae.models import Generator, PlainModel
from mocae.policies import FixedPolicy, Policy, weights_vector
from mocae.stages.run import Made, Run
from mocae.stages.store import Stage
from mocae.systems.base import BankSystem

__all__ = ["Base", "Expert", "Fixed", "Static", "Sum", "Uniform"]


class Fixed(BankSystem):
    """The same weights for every prompt."""

    @abstractmethod
    def weights(self) -> Float[Tensor, " K"]:
        """Return one weight an expert."""

    def choose(self, made: Made) -> Policy:
        """Return the policy that gives these weights."""
        return FixedPolicy(self.weights())

    def constant_weights(self) -> dict[str, float] | None:
        """Return the weights by name."""
        return dict(zip(self.axes, self.weights().tolist(), strict=True))

    def n_active(self, made: Made) -> int:
        """Return the parameters of the experts with a weight."""
        used = [axis for axis, weight in zip(self.axes, self.weights().tolist(), strict=True) if weight]
        return sum(int(made.record(f"expert:{axis}")["n_parameters"]) for axis in used)


class Base(Fixed):
    """The base model as it is; it needs no expert, and beside them it answers as with all weights 0, bit for bit."""

    def weights(self) -> Float[Tensor, " K"]:
        """Return zeros."""
        return torch.zeros(len(self.axes))

    def stages(self, run: Run) -> dict[str, Stage]:
        """Return none."""
        return {}

    def load(self, made: Made) -> Generator:
        """Return the base model."""
        return super().load(made) if made.folders else PlainModel(made.base)


class Expert(Fixed):
    """One expert alone, `expert:<axis>`."""

    def check(self) -> None:
        """Refuse an axis that is none."""
        if self.argument not in self.axes:
            raise ConfigError(f"policy: {unknown_name('axis', self.argument or '', self.axes)}")

    def weights(self) -> Float[Tensor, " K"]:
        """Return 1 for the expert, 0 for the others."""
        return weights_vector({self.argument or "": 1.0}, self.axes)


class Uniform(Fixed):
    """Every expert with weight 1 / K."""

    def weights(self) -> Float[Tensor, " K"]:
        """Return 1 / K for each."""
        return torch.full((len(self.axes),), 1 / len(self.axes))


class Sum(Fixed):
    """Every expert with weight 1: all task vectors added (task arithmetic, arXiv 2212.04089)."""

    def weights(self) -> Float[Tensor, " K"]:
        """Return ones."""
        return torch.ones(len(self.axes))


class StaticOptions(Config):
    """Options of a `static` system."""

    weights: dict[str, float] = Field(default_factory=dict)
    """Expert -> weight; experts that are not named have 0, negative weights are allowed."""


class Static(Fixed):
    """Weights given by hand."""

    Options = StaticOptions

    def check(self) -> None:
        """Refuse no weights at all, and weights of what is no expert."""
        super().check()
        if not self.options.weights:
            raise ConfigError("options.weights: none given; give {<expert>: <number>, ...}")
        for axis in self.options.weights:
            if axis not in self.axes:
                raise ConfigError(f"options.weights: {unknown_name('axis', axis, self.axes)}")

    def weights(self) -> Float[Tensor, " K"]:
        """Return the weights given."""
        return weights_vector(self.options.weights, self.axes)
